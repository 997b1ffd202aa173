"""Before a measurement: every service that creates payments must make the same checks as the others."""

import requests

from bench.environment import FIRST_UNPAID, UNPAID, Store
from bench.requests import AMOUNT
from tests.support.waiting import PATIENCE_SECONDS

UNKNOWN_CONSULTATION = FIRST_UNPAID + 10 * UNPAID
FOREIGN_CONSULTATION = FIRST_UNPAID + UNPAID


def require_contract(url: str, store: Store) -> None:
    """Require checks of token, input and ownership, one payment per key and consultation, and all five rows once."""
    store.clear()
    client = _Client(url, store.patient.token)
    client.expect(401, FIRST_UNPAID, "a", token=f"{store.patient.token[:-8]}tampered")
    client.expect(422, FIRST_UNPAID, "b", amount=1)
    client.expect(404, UNKNOWN_CONSULTATION, "c")
    client.expect(403, FOREIGN_CONSULTATION, "d")
    first = client.expect(201, FIRST_UNPAID, "e")
    again = client.expect(201, FIRST_UNPAID, "e")
    client.expect(422, FIRST_UNPAID + 1, "e")
    client.expect(409, FIRST_UNPAID, "f")
    if again.content != first.content or again.headers.get("Idempotent-Replayed") != "true":
        raise SystemExit(f"{url} responds to a replay with {again.text}, but responded first with {first.text}")
    if store.counts() != {1}:
        raise SystemExit(f"{url} made {store.counts()} rows for one payment")
    store.clear()


class _Client:
    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1/payments"
        self._token = token

    def expect(
        self, status: int, consultation_id: int, key: str, *, amount: int = AMOUNT, token: str | None = None
    ) -> requests.Response:
        response = requests.post(
            self._url,
            json={"consultation_id": consultation_id, "amount": amount, "payment_method": "stripe"},
            headers={
                "Authorization": f"Bearer {token or self._token}",
                "Idempotency-Key": f"contract-{key}",
                "X-Forwarded-Proto": "https",
            },
            timeout=PATIENCE_SECONDS,
        )
        if response.status_code != status:
            raise SystemExit(f"{self._url} responds with {response.status_code}, not {status}: {response.text}")
        return response

"""Before anything is measured, every service that creates payments has to show that it checks what the others check."""

import requests

from bench.environment import FIRST_UNPAID, UNPAID, Store
from bench.requests import AMOUNT
from tests.support.waiting import PATIENCE_SECONDS

NOBODYS = FIRST_UNPAID + 10 * UNPAID
SOMEBODY_ELSES = FIRST_UNPAID + UNPAID


def require_contract(url: str, store: Store) -> None:
    """Token, validation, ownership, one payment for a key and one for a consultation; all five rows, once."""
    store.clear()
    ask = _Asker(url, store.patient.token)
    ask.expect(401, FIRST_UNPAID, "a", token=f"{store.patient.token[:-8]}tampered")
    ask.expect(422, FIRST_UNPAID, "b", amount=1)
    ask.expect(404, NOBODYS, "c")
    ask.expect(403, SOMEBODY_ELSES, "d")
    first = ask.expect(201, FIRST_UNPAID, "e")
    again = ask.expect(201, FIRST_UNPAID, "e")
    ask.expect(422, FIRST_UNPAID + 1, "e")
    ask.expect(409, FIRST_UNPAID, "f")
    if again.content != first.content or again.headers.get("Idempotent-Replayed") != "true":
        raise SystemExit(f"{url} answers a replay with {again.text}, and at first with {first.text}")
    if store.counts() != {1}:
        raise SystemExit(f"{url} made {store.counts()} rows for one payment")
    store.clear()


class _Asker:
    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1/payments"
        self._token = token

    def expect(
        self, status: int, consultation_id: int, key: str, *, amount: int = AMOUNT, token: str | None = None
    ) -> requests.Response:
        answer = requests.post(
            self._url,
            json={"consultation_id": consultation_id, "amount": amount, "payment_method": "stripe"},
            headers={
                "Authorization": f"Bearer {token or self._token}",
                "Idempotency-Key": f"manners-{key}",
                "X-Forwarded-Proto": "https",
            },
            timeout=PATIENCE_SECONDS,
        )
        if answer.status_code != status:
            raise SystemExit(f"{self._url} answers {answer.status_code} where {status} is due: {answer.text}")
        return answer

"""A link is revoked while those who have it are at work: after the answer, nothing that they ask has an effect."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.dialects import long_on_sqlite
from tests.support.links import Payer, payer_of
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service

ROUNDS = 5
PAYERS = 6

pytestmark = pytest.mark.usefixtures("audited")

# Whatever a payer's request may leave behind.
TRACES = ("payments", "payment_events", "idempotency_keys", "gateway_sessions")


@long_on_sqlite
def test_after_a_link_is_revoked_no_request_of_its_token_has_an_effect(
    service: Service, people: People, rows: Rows
) -> None:
    effects = 0
    for consultation_id in range(1, ROUNDS + 1):
        payer = payer_of(people, consultation_id)
        begun, revoked = threading.Barrier(PAYERS + 1), threading.Event()
        with ThreadPoolExecutor(PAYERS) as pool:
            work = [pool.submit(_pay_and_cancel, service, payer, begun, revoked) for _ in range(PAYERS)]
            begun.wait()
            answer = requests.delete(
                f"{service.url}/api/v1{payer.link_path}", headers=people.admin.authorization, timeout=60
            )
            left = rows.counts(*TRACES)
            revoked.set()
            told = [status for one in work for status in one.result()]

        assert answer.status_code == 204, answer.text
        assert rows.counts(*TRACES) == left
        assert set(told) <= {200, 201, 401, 409}, told
        effects += sum(status in (200, 201) for status in told)
        # Who asked after the answer was told nothing.
        assert told.count(401) >= PAYERS
    assert effects > ROUNDS


def _pay_and_cancel(service: Service, payer: Payer, begun: threading.Barrier, revoked: threading.Event) -> list[int]:
    """The statuses of all that was asked: in turns a payment and its end, and once more after the link was revoked."""
    told: list[int] = []
    number = 0
    while True:
        is_last = revoked.is_set()
        paid = service.pay(payer, payer.consultation_id, f"{threading.get_ident()}-{payer.link_id}-{number}")
        told.append(paid.status_code)
        if paid.status_code == 201:
            path = f"/payments/{paid.json()['data']['payment_id']}"
            told.append(service.post(payer, f"{path}/checkout", {}).status_code)
            told.append(service.post(payer, f"{path}/cancel", {}).status_code)
        if number == 0:
            begun.wait()
        if is_last:
            return told
        number += 1

"""A payment and its refunds through our API, against a Stripe look-alike that somebody else wrote.

It forgives what Stripe would not: it ignores idempotency keys, and refunds more than was paid. So what holds here,
holds by us alone.
"""

import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import requests

from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.fake_stripe_http import FakeResponse, Received, Server
from tests.support.localstripe import LocalStripe, local_stripe
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import open_by_card, refund, resume_refunds
from tests.support.waiting import PATIENCE_SECONDS


class Line:
    """The wire between the app and localstripe, which may lose an answer after what was asked has been done."""

    def __init__(self, stripe: LocalStripe) -> None:
        self.loses_refunds = False
        self._stripe = stripe
        self._server = Server(self._pass_on)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _pass_on(self, request: Received, authorization: str | None, _client: socket.socket) -> FakeResponse | None:
        form = {
            name if inner is None else f"{name}[{inner}]": value
            for name, values in request.params.items()
            for inner, value in (values.items() if isinstance(values, dict) else [(None, values)])
        }
        answer = requests.request(
            request.method,
            f"{self._stripe.url}{request.path}",
            params=form if request.method == "GET" else None,
            data=form if request.method == "POST" else None,
            headers={"Authorization": authorization or ""},
            timeout=PATIENCE_SECONDS,
        )
        if self.loses_refunds and (request.method, request.path) == ("POST", "/v1/refunds"):
            return None
        return FakeResponse(answer.status_code, answer.content)


@pytest.fixture(scope="module")
def stripe() -> Iterator[LocalStripe]:
    with local_stripe() as server:
        yield server


@pytest.fixture
def line(stripe: LocalStripe) -> Iterator[Line]:
    line = Line(stripe)
    yield line
    line.close()


@pytest.fixture
def stripe_app(database: Database, line: Line, stripe: LocalStripe, people: People) -> Iterator[People]:
    """The people as clients of an app that takes cards through localstripe."""
    # It has no Checkout Sessions.
    settings = {"STRIPE_API_KEY": stripe.api_key, "STRIPE_API_BASE": line.url, "STRIPE_CHECKOUT": "elements"}
    # Somebody else's server may need a moment; but nothing is asked twice by itself.
    with app_with(database.url, **settings, GATEWAY_TIMEOUT="10", REFUND_LEASE="11") as app:
        yield people.seen_by(app)


pytestmark = pytest.mark.usefixtures("audited")


def paid(stripe_app: People, stripe: LocalStripe) -> tuple[int, str]:
    payment_id, reference = open_by_card(stripe_app, 5)
    stripe.pay(reference)
    assert stripe_app.patient.confirm(payment_id, reference).status_code == 200
    return payment_id, reference


def returned(stripe: LocalStripe, intent_id: str) -> list[int]:
    """Each refund of the payment, by localstripe's account."""
    answer = requests.get(
        f"{stripe.url}/v1/refunds",
        params={"payment_intent": intent_id, "limit": "100"},
        headers={"Authorization": f"Bearer {stripe.api_key}"},
        timeout=PATIENCE_SECONDS,
    )
    assert answer.ok, answer.text
    listed: list[dict[str, Any]] = answer.json()["data"]
    return [made["amount"] for made in listed]


def test_a_payment_and_its_refunds(stripe_app: People, stripe: LocalStripe, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app, 5)
    early = stripe_app.patient.confirm(payment_id, reference)
    assert early.status_code == 402
    stripe.pay(reference)

    confirmed = stripe_app.patient.confirm(payment_id, reference)
    part = refund(stripe_app.admin, payment_id, amount=1999.99)
    rest = refund(stripe_app.admin, payment_id)

    assert (confirmed.status_code, confirmed.json["data"]["status"]) == (200, "completed")
    assert (part.status_code, part.json["data"]["payment"]["status"]) == (200, "partially_refunded")
    assert (rest.status_code, rest.json["data"]["payment"]["status"]) == (200, "refunded")
    assert sorted(returned(stripe, reference)) == [199_999, 300_001]
    assert rows.one("SELECT received_minor, refunded_minor FROM payments") == {
        "received_minor": 500_000,
        "refunded_minor": 500_000,
    }


def test_a_cancelled_payment_cannot_be_paid_any_more(stripe_app: People, stripe: LocalStripe) -> None:
    payment_id, reference = open_by_card(stripe_app, 5)

    assert stripe_app.patient.post(f"/payments/{payment_id}/cancel").status_code == 200

    with pytest.raises(AssertionError, match="error"):
        stripe.pay(reference)


def test_no_more_than_was_paid_goes_back_though_the_gateway_would(stripe_app: People, stripe: LocalStripe) -> None:
    payment_id, reference = paid(stripe_app, stripe)
    assert refund(stripe_app.admin, payment_id, amount=3000).status_code == 200

    answer = refund(stripe_app.admin, payment_id, amount=3000, allow_repeat=True)

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/refund-exceeds-balance")
    assert returned(stripe, reference) == [300_000]


def test_the_same_key_again_is_one_refund_though_the_gateway_ignores_keys(
    stripe_app: People, stripe: LocalStripe
) -> None:
    payment_id, reference = paid(stripe_app, stripe)

    answers = [refund(stripe_app.admin, payment_id, key="k", amount=1000) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert returned(stripe, reference) == [100_000]


def test_resume_looks_up_first_so_that_nothing_is_returned_twice(
    stripe_app: People, stripe: LocalStripe, line: Line, rows: Rows
) -> None:
    payment_id, reference = paid(stripe_app, stripe)
    line.loses_refunds = True
    lost = refund(stripe_app.admin, payment_id, key="k", amount=1000)
    assert (lost.status_code, lost.json["data"]["refund"]["status"]) == (202, "unknown")
    line.loses_refunds = False

    for _ in range(2):
        resume_refunds(stripe_app.app)

    told = refund(stripe_app.admin, payment_id, key="k", amount=1000)
    assert (told.status_code, told.json["data"]["refund"]["status"]) == (200, "succeeded")
    assert returned(stripe, reference) == [100_000]
    assert rows.one("SELECT version, refunded_minor, refund_reserved_minor FROM payments") == {
        "version": 3,
        "refunded_minor": 100_000,
        "refund_reserved_minor": 0,
    }

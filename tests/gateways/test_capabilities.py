"""What the rest of the service does with a gateway's capabilities, whichever gateway has them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from config import ConfigError
from payments_app import clock
from payments_app.gateways.base import GatewayName
from payments_app.gateways.capabilities import Refundable
from payments_app.gateways.sandbox import SandboxGateway
from payments_app.payments.models.event import AuditContext
from payments_app.refunds import service
from tests.refunds.test_resume import grow_old, lose, sent_keys
from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, pay_by_card, refund, resume_refunds

Change = Callable[..., None]


@pytest.fixture
def change(stripe_app: StripeApp, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Give the gateway of the shop other capabilities, as another gateway would have them."""
    gateway = stripe_app.app.extensions["gateways"][GatewayName.STRIPE]

    def change(**capabilities: Any) -> None:
        monkeypatch.setattr(gateway, "capabilities", replace(gateway.capabilities, **capabilities))

    return change


@pytest.mark.parametrize(
    "case",
    [(Refundable.NOT, {}, 422), (Refundable.WHOLE, {"amount": 1000}, 422), (Refundable.WHOLE, {}, 200)],
    ids=str,
)
def test_what_a_gateway_cannot_refund_is_refused_before_anything_is_sent(
    stripe_app: StripeApp, rows: Rows, change: Change, case: tuple[Refundable, dict[str, int], int]
) -> None:
    how, amount, status = case
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    change(methods={"stripe": how})

    answer = refund(stripe_app.people.admin, payment_id, key="k", **amount)

    assert answer.status_code == status
    if status == 422:
        assert answer.json["type"].endswith("/not-refundable")
        assert (sent_keys(stripe_app.fake), rows.count("refunds")) == ([], 0)
        assert rows.count("idempotency_keys", "key = 'k'") == 0
        assert rows.one("SELECT refund_reserved_minor FROM payments") == {"refund_reserved_minor": 0}


def test_without_remembered_keys_a_lost_refund_is_sent_again_by_staff_alone(
    stripe_app: StripeApp, rows: Rows, change: Change
) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    change(remembers_keys_seconds=None)
    refund_id = lose(stripe_app, payment_id, "error_before")

    def send_again() -> str:
        with stripe_app.app.app_context():
            context = AuditContext("system:test", None, clock.now())
            sent = service.send_again(refund_id, lease_seconds=4, context=context)
        assert sent is not None
        return sent.status

    resume_refunds(stripe_app.app)
    grow_old(rows, 23.5)
    assert send_again() == "unknown"  # too early: it is only looked up
    grow_old(rows, 24.5)
    resume_refunds(stripe_app.app)
    assert sent_keys(stripe_app.fake) == [f"refund-{refund_id}"]

    grow_old(rows, 24.5)
    assert send_again() == "succeeded"

    assert sent_keys(stripe_app.fake) == [f"refund-{refund_id}"] * 2
    assert len(stripe_app.fake.refunds) == 1


def test_without_remembered_keys_a_lost_refund_that_was_made_is_found(
    stripe_app: StripeApp, rows: Rows, change: Change
) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    change(remembers_keys_seconds=None)
    lose(stripe_app, payment_id, "drop")

    resume_refunds(stripe_app.app)

    assert rows.one("SELECT status FROM refunds") == {"status": "succeeded"}
    assert len(sent_keys(stripe_app.fake)) == len(stripe_app.fake.refunds) == 1


def test_methods_go_by_the_gateways_of_the_settings(database: Database) -> None:
    wanted = {"PAYMENT_GATEWAYS": "gcash:sandbox, e_wallet:manual", "STRIPE_API_KEY": "sk_test_1"}
    with app_with(database.url, **wanted) as app:
        carriers = {method.code: method.gateway for method in app.extensions["payment_methods"]}

    assert carriers == {"stripe": "stripe", "gcash": "sandbox", "bank_transfer": "manual", "e_wallet": "manual"}


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ("stripe:stripe", "the gateway stripe is not configured"),
        ("stripe:manual", "manual does not carry this method"),
        ("cards:stripe", "must read like"),
        ("stripe:visa", "must read like"),
        ("stripe", "must read like"),
        ("gcash:manual,gcash:sandbox", "names gcash twice"),
    ],
)
def test_a_method_that_its_gateway_cannot_carry_stops_the_start(wanted: str, refusal: str) -> None:
    with (
        pytest.raises(ConfigError, match=f"^PAYMENT_GATEWAYS .*{refusal}"),
        app_with("sqlite:///unused.db", PAYMENT_GATEWAYS=wanted),
    ):
        pass


def test_a_currency_that_a_gateway_does_not_take_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = replace(SandboxGateway.capabilities, currencies=frozenset({"PHP"}))
    monkeypatch.setattr(SandboxGateway, "capabilities", narrow)
    with app_with("sqlite:///unused.db"):
        pass
    refusal = "^PAYMENT_CURRENCY EUR: sandbox, which carries stripe, takes PHP only$"
    with pytest.raises(ConfigError, match=refusal), app_with("sqlite:///unused.db", PAYMENT_CURRENCY="EUR"):
        pass

"""An app whose cards are carried by a fake Stripe over real HTTP, and a payment that is paid by card in it.

Fixtures cannot be imported without ado, so these are plain functions: a test file makes thin fixtures of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask

from payments_app import clock
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.refund import Refund
from payments_app.refunds import service
from tests.support.apps import app_with
from tests.support.client import ApiResponse
from tests.support.fake_stripe import FakeStripe
from tests.support.people import People, Person

# Seconds. No attempt is repeated within so short a lease, so that a broken connection or a 500 is told at once.
# One that hangs costs the timeout, which is long enough for a machine that is busy with everybody else's tests.
# ``GATEWAY_TIMEOUT="3", REFUND_LEASE="10"`` allows repetitions.
QUICK = {"GATEWAY_TIMEOUT": "3", "REFUND_LEASE": "4"}


class StripeApp(NamedTuple):
    """Stripe, as far as the app can tell; the app; and its people, who come in by its door."""

    fake: FakeStripe
    app: Flask
    people: People


@contextmanager
def fake_stripe() -> Iterator[FakeStripe]:
    fake = FakeStripe()
    try:
        yield fake
    finally:
        fake.close()


def stripe_settings(fake: FakeStripe, **settings: str) -> dict[str, str]:
    """The environment by which an app, or a gunicorn, takes the fake for Stripe; others may be given, or replaced."""
    return {
        "STRIPE_API_KEY": fake.api_key,
        "STRIPE_API_BASE": fake.url,
        "STRIPE_WEBHOOK_SECRET": fake.webhook_secret,
        **QUICK,
        **settings,
    }


@contextmanager
def card_shop(database_url: str, people: People, **settings: str) -> Iterator[StripeApp]:
    """An app of its own, on the database of the people, with a Stripe of its own."""
    with fake_stripe() as fake, app_with(database_url, **stripe_settings(fake, **settings)) as app:
        yield StripeApp(fake, app, people.seen_by(app))


def open_by_card(people: People, consultation_id: int, amount: int = 5000) -> tuple[int, str]:
    """A payment with an open session at Stripe: its id, and the PaymentIntent's."""
    created = people.patient.pay(consultation_id, amount=amount)
    assert created.status_code == 201, created.json
    payment_id: int = created.json["data"]["payment_id"]
    opened = people.patient.post(f"/payments/{payment_id}/checkout")
    assert opened.status_code == 200, opened.json
    reference: str = opened.json["data"]["reference"]
    return payment_id, reference


def pay_by_card(people: People, fake: FakeStripe, consultation_id: int, amount: int = 5000) -> int:
    """A payment that the patient has paid at Stripe, and confirmed."""
    payment_id, reference = open_by_card(people, consultation_id, amount)
    fake.pay(reference)
    confirmed = people.patient.confirm(payment_id, reference)
    assert confirmed.status_code == 200, confirmed.json
    return payment_id


def refund(person: Person, payment_id: int, key: str | None = None, **members: Any) -> ApiResponse:
    """POST the refund, of all that is left where no ``amount`` is said."""
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(f"/payments/{payment_id}/refund", members, headers=headers)


def resume_refunds(app: Flask, *, lease_seconds: int = 60) -> list[Refund | None]:
    """What the command does: every open refund that nobody is at work on, one after the other."""
    with app.app_context():
        context = AuditContext("system:test", None, clock.now())
        return [
            service.resume(refund_id, lease_seconds=lease_seconds, context=context)
            for refund_id in service.find_open(context.at)
        ]

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

# Seconds. In so short a lease the SDK repeats no request, so that a broken connection or a 500 fails at once.
# A request that hangs costs the timeout, which is long enough for a machine that is busy with other tests.
# ``GATEWAY_TIMEOUT="3", REFUND_LEASE="10"`` allows repetitions.
QUICK = {"GATEWAY_TIMEOUT": "3", "REFUND_LEASE": "4"}


class StripeApp(NamedTuple):
    """A fake Stripe, an app that uses it, and the people as clients of that app."""

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
    """Settings that make an app or a gunicorn use the fake; ``settings`` adds more or replaces some."""
    return {
        "STRIPE_API_KEY": fake.api_key,
        "STRIPE_API_BASE": fake.url,
        "STRIPE_WEBHOOK_SECRET": fake.webhook_secret,
        # Most tests pay by the PaymentIntent itself, as a page with a form of its own does.
        "STRIPE_CHECKOUT": "elements",
        **QUICK,
        **settings,
    }


@contextmanager
def stripe_app_on(database_url: str, people: People, **settings: str) -> Iterator[StripeApp]:
    """A separate app with a separate Stripe, on the database of the people."""
    with fake_stripe() as fake, app_with(database_url, **stripe_settings(fake, **settings)) as app:
        yield StripeApp(fake, app, people.seen_by(app))


def open_by_card(people: People, consultation_id: int, amount: int = 5000) -> tuple[int, str]:
    """Create a payment with an open session at Stripe; returns its id, and the PaymentIntent's."""
    created = people.patient.pay(consultation_id, amount=amount)
    assert created.status_code == 201, created.json
    payment_id: int = created.json["data"]["payment_id"]
    opened = people.patient.post(f"/payments/{payment_id}/checkout")
    assert opened.status_code == 200, opened.json
    reference: str = opened.json["data"]["reference"]
    return payment_id, reference


def pay_by_card(people: People, fake: FakeStripe, consultation_id: int, amount: int = 5000) -> int:
    """Create a payment that the patient has paid at Stripe and confirmed."""
    payment_id, reference = open_by_card(people, consultation_id, amount)
    fake.pay(reference)
    confirmed = people.patient.confirm(payment_id, reference)
    assert confirmed.status_code == 200, confirmed.json
    return payment_id


def refund(person: Person, payment_id: int, key: str | None = None, **members: Any) -> ApiResponse:
    """POST a refund; without ``amount``, of all that is left."""
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(f"/payments/{payment_id}/refund", members, headers=headers)


def resume_refunds(app: Flask, *, lease_seconds: int = 60) -> list[Refund | None]:
    """Resume every open refund without a lease, one after the other, as the command does."""
    with app.app_context():
        context = AuditContext("system:test", None, clock.now())
        return [
            service.resume(refund_id, lease_seconds=lease_seconds, context=context)
            for refund_id in service.find_open(context.at)
        ]

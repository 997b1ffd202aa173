"""What races for a payment on Stripe's own page, whose Checkout Sessions end and are followed by others.

The requests that are the same on every page of Stripe's are in ``cases.py``.
"""

from collections.abc import Callable

from tests.prove.states import CONSULTATION, pending
from tests.support.operations import Operation, checkout, close, refresh, webhook
from tests.support.stripe_apps import StripeApp, open_by_card

Prepare = Callable[[StripeApp], list[Operation]]


def _ended(stripe_app: StripeApp) -> tuple[int, Operation]:
    """A payment whose session ended unpaid, and the event that says so."""
    payment_id, session_id = open_by_card(stripe_app.people, CONSULTATION)
    stripe_app.fake.pass_expiry(session_id)
    return payment_id, webhook(stripe_app.fake.session_event("expired", session_id))


def _paid(stripe_app: StripeApp) -> tuple[int, str, str]:
    """A payment that the patient has paid, which nobody has told us yet; its session and intent."""
    payment_id, session_id = open_by_card(stripe_app.people, CONSULTATION)
    return payment_id, session_id, stripe_app.fake.submit(session_id)["id"]


def hosted_checkouts(stripe_app: StripeApp) -> list[Operation]:
    payment_id = pending(stripe_app)
    return [checkout(stripe_app.people.patient, payment_id, key) for key in "ab"]


def hosted_checkout_and_end(stripe_app: StripeApp) -> list[Operation]:
    """The next session is opened while Stripe tells that the last one has ended."""
    payment_id, ended = _ended(stripe_app)
    return [ended, checkout(stripe_app.people.patient, payment_id, "a")]


def hosted_checkouts_and_end(stripe_app: StripeApp) -> list[Operation]:
    payment_id, ended = _ended(stripe_app)
    return [ended, *(checkout(stripe_app.people.patient, payment_id, key) for key in "ab")]


def hosted_checkout_and_close(stripe_app: StripeApp) -> list[Operation]:
    payment_id = pending(stripe_app)
    return [checkout(stripe_app.people.patient, payment_id, "a"), close(stripe_app.people.admin, CONSULTATION)]


def hosted_refresh_and_webhook(stripe_app: StripeApp) -> list[Operation]:
    payment_id, session_id, _ = _paid(stripe_app)
    completed = webhook(stripe_app.fake.session_event("completed", session_id))
    return [refresh(stripe_app.people.patient, payment_id), completed]


def hosted_refresh_and_end(stripe_app: StripeApp) -> list[Operation]:
    payment_id, ended = _ended(stripe_app)
    return [refresh(stripe_app.people.patient, payment_id), ended]


def hosted_refreshes(stripe_app: StripeApp) -> list[Operation]:
    return [refresh(stripe_app.people.patient, _paid(stripe_app)[0])] * 2


def hosted_events(stripe_app: StripeApp) -> list[Operation]:
    """Of one payment: the session's event, and its intent's."""
    _, session_id, intent = _paid(stripe_app)
    return [
        webhook(stripe_app.fake.session_event("completed", session_id)),
        webhook(stripe_app.fake.intent_event("succeeded", intent)),
    ]


CASES: list[Prepare] = [
    hosted_checkouts,
    hosted_checkout_and_end,
    hosted_checkout_and_close,
    hosted_refresh_and_webhook,
    hosted_refresh_and_end,
    hosted_refreshes,
    hosted_events,
    hosted_checkouts_and_end,
]

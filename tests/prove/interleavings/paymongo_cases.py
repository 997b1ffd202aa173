"""What races for a payment by PayMongo, which remembers no gateway keys and is read again for each of its events."""

from collections.abc import Callable

from tests.prove.states import CONSULTATION
from tests.support.apps import engine_of
from tests.support.operations import (
    Expire,
    ExpireInTheEnd,
    Operation,
    PayAtPayMongo,
    Resume,
    SendAgain,
    cancel,
    checkout,
    close,
    confirm,
    paymongo_webhook,
    refund,
)
from tests.support.paymongo_apps import PayMongoApp
from tests.support.rows import Rows

Prepare = Callable[[PayMongoApp], list[Operation]]


def _paid(shop: PayMongoApp) -> tuple[int, str, str]:
    """A payment that the patient has paid, which nobody has told us yet; its session and its transaction."""
    payment_id, session_id = shop.open(CONSULTATION)
    return payment_id, session_id, shop.fake.pay(session_id)


def _session_paid(shop: PayMongoApp, session_id: str) -> Operation:
    return paymongo_webhook(shop.fake, shop.fake.session_paid(session_id))


def _payment_paid(shop: PayMongoApp, transaction_id: str) -> Operation:
    return paymongo_webhook(shop.fake, shop.fake.payment_event("paid", transaction_id))


def _lost_refund(shop: PayMongoApp, *, applied: bool) -> int:
    """An open refund of whose outcome nobody was told, made so long ago that staff may send it again."""
    payment_id, _ = shop.paid(CONSULTATION)
    shop.fake.misbehave("drop" if applied else "error_before", path="/v1/refunds", times=None)
    answer = refund(shop.people.admin, payment_id, 2000, "lost").do(shop.app)
    shop.fake.behave()
    Rows(engine_of(shop.app)).execute("UPDATE refunds SET created_at = created_at - interval '25 hours'")
    refund_id: int = answer.data["refund"]["id"]
    return refund_id


# Sessions.


def paymongo_checkouts(shop: PayMongoApp) -> list[Operation]:
    """One opens a session; the other one is to come again, and is given the same."""
    payment_id = shop.create(CONSULTATION)
    return [checkout(shop.people.patient, payment_id, key) for key in "ab"]


def paymongo_twin_checkouts(shop: PayMongoApp) -> list[Operation]:
    return [checkout(shop.people.patient, shop.create(CONSULTATION), "a")] * 2


def paymongo_checkouts_after_a_lost_one(shop: PayMongoApp) -> list[Operation]:
    """PayMongo opened a session and did not answer: that one is given up, and one other is opened."""
    payment_id = shop.create(CONSULTATION)
    shop.fake.misbehave("drop", path="/v1/checkout_sessions")
    lost = checkout(shop.people.patient, payment_id, "lost").do(shop.app)
    assert lost.ask_again, lost
    return [checkout(shop.people.patient, payment_id, key) for key in "ab"]


def paymongo_checkout_and_webhook(shop: PayMongoApp) -> list[Operation]:
    payment_id, session_id, _ = _paid(shop)
    return [checkout(shop.people.patient, payment_id, "a"), _session_paid(shop, session_id)]


def paymongo_checkout_and_expire(shop: PayMongoApp) -> list[Operation]:
    payment_id = shop.create(CONSULTATION)
    return [checkout(shop.people.patient, payment_id, "a"), ExpireInTheEnd(payment_id)]


def paymongo_checkout_and_close(shop: PayMongoApp) -> list[Operation]:
    payment_id = shop.create(CONSULTATION)
    return [checkout(shop.people.patient, payment_id, "a"), close(shop.people.admin, CONSULTATION)]


def paymongo_checkout_and_cancel(shop: PayMongoApp) -> list[Operation]:
    payment_id = shop.create(CONSULTATION)
    return [checkout(shop.people.patient, payment_id, "a"), cancel(shop.people.patient, payment_id, "b")]


# Money.


def paymongo_events(shop: PayMongoApp) -> list[Operation]:
    """The two events of one payment."""
    _, session_id, transaction_id = _paid(shop)
    return [_session_paid(shop, session_id), _payment_paid(shop, transaction_id)]


def paymongo_confirm_and_webhook(shop: PayMongoApp) -> list[Operation]:
    payment_id, _, transaction_id = _paid(shop)
    return [confirm(shop.people.patient, payment_id, transaction_id, "a"), _payment_paid(shop, transaction_id)]


def paymongo_expire_and_webhook(shop: PayMongoApp) -> list[Operation]:
    payment_id, session_id, _ = _paid(shop)
    return [Expire(payment_id), _session_paid(shop, session_id)]


def paymongo_pay_and_expire(shop: PayMongoApp) -> list[Operation]:
    """The patient pays in the very moment in which the payment ends."""
    payment_id, session_id = shop.open(CONSULTATION)
    return [PayAtPayMongo(shop.fake, session_id), Expire(payment_id)]


def paymongo_pay_and_close(shop: PayMongoApp) -> list[Operation]:
    _, session_id = shop.open(CONSULTATION)
    return [PayAtPayMongo(shop.fake, session_id), close(shop.people.admin, CONSULTATION)]


def paymongo_events_and_expire(shop: PayMongoApp) -> list[Operation]:
    payment_id, session_id, transaction_id = _paid(shop)
    return [_session_paid(shop, session_id), _payment_paid(shop, transaction_id), Expire(payment_id)]


# Refunds.


def paymongo_sends_again(shop: PayMongoApp) -> list[Operation]:
    """Two of the staff send again what PayMongo never made: it is made once."""
    return [SendAgain(_lost_refund(shop, applied=False))] * 2


def paymongo_resume_and_send_again(shop: PayMongoApp) -> list[Operation]:
    refund_id = _lost_refund(shop, applied=False)
    return [Resume(refund_id), SendAgain(refund_id)]


def paymongo_resume_and_send_again_of_what_was_made(shop: PayMongoApp) -> list[Operation]:
    refund_id = _lost_refund(shop, applied=True)
    return [Resume(refund_id), SendAgain(refund_id)]


def paymongo_send_again_and_webhook(shop: PayMongoApp) -> list[Operation]:
    """Of a refund that was made."""
    refund_id = _lost_refund(shop, applied=True)
    (made,) = shop.fake.refunds
    return [SendAgain(refund_id), paymongo_webhook(shop.fake, shop.fake.refund_event("refund.succeeded", made))]


CASES: list[Prepare] = [
    paymongo_checkouts,
    paymongo_twin_checkouts,
    paymongo_checkouts_after_a_lost_one,
    paymongo_checkout_and_webhook,
    paymongo_checkout_and_expire,
    paymongo_checkout_and_close,
    paymongo_checkout_and_cancel,
    paymongo_events,
    paymongo_confirm_and_webhook,
    paymongo_expire_and_webhook,
    paymongo_pay_and_expire,
    paymongo_pay_and_close,
    paymongo_sends_again,
    paymongo_resume_and_send_again,
    paymongo_resume_and_send_again_of_what_was_made,
    paymongo_send_again_and_webhook,
    paymongo_events_and_expire,
]

"""Which operations race for a payment, and from where: each case makes it as it is before, and says what is done.

Stripe's part is played by the fake one over real HTTP; what is paid by hand is confirmed by staff.
"""

from collections.abc import Callable

from tests.prove.states import (
    CONSULTATION,
    by_hand,
    completed,
    lost_refund,
    paid_at_stripe,
    pending,
    returned_elsewhere,
    succeeded,
)
from tests.support.operations import (
    Expire,
    Operation,
    PayAtStripe,
    Resume,
    cancel,
    checkout,
    confirm,
    create,
    refund,
    webhook,
)
from tests.support.stripe_apps import CardShop, open_by_card

Prepare = Callable[[CardShop], list[Operation]]


# Creates.


def creates(shop: CardShop) -> list[Operation]:
    patient = shop.people.patient
    return [create(patient, CONSULTATION, "a"), create(patient, CONSULTATION, "b")]


def twin_creates(shop: CardShop) -> list[Operation]:
    return [create(shop.people.patient, CONSULTATION, "a")] * 2


def creates_of_one_key(shop: CardShop) -> list[Operation]:
    return [create(shop.people.patient, CONSULTATION, "a"), create(shop.people.patient, CONSULTATION + 1, "a")]


def three_creates(shop: CardShop) -> list[Operation]:
    patient = shop.people.patient
    return [*twin_creates(shop), create(patient, CONSULTATION, "b")]


def create_and_cancel(shop: CardShop) -> list[Operation]:
    payment_id = by_hand(shop)
    return [create(shop.people.patient, CONSULTATION, "a"), cancel(shop.people.patient, payment_id, "b")]


def create_and_late_money(shop: CardShop) -> list[Operation]:
    """A payment that expired, and was paid all the same while the patient begins another one."""
    payment_id = by_hand(shop)
    Expire(payment_id).do(shop.app)
    return [create(shop.people.patient, CONSULTATION, "a"), confirm(shop.people.admin, payment_id, "TXN-1", "b")]


# Confirms and what ends a payment.


def confirms(shop: CardShop) -> list[Operation]:
    payment_id = by_hand(shop)
    return [confirm(shop.people.admin, payment_id, f"TXN-{key}", key) for key in "ab"]


def twin_confirms(shop: CardShop) -> list[Operation]:
    return [confirm(shop.people.admin, by_hand(shop), "TXN-1", "a")] * 2


def confirm_and_cancel(shop: CardShop) -> list[Operation]:
    payment_id = by_hand(shop)
    return [confirm(shop.people.admin, payment_id, "TXN-1", "a"), cancel(shop.people.patient, payment_id, "b")]


def confirm_and_cancel_by_card(shop: CardShop) -> list[Operation]:
    payment_id, intent = paid_at_stripe(shop)
    return [confirm(shop.people.patient, payment_id, intent, "a"), cancel(shop.people.patient, payment_id, "b")]


def confirm_and_expire(shop: CardShop) -> list[Operation]:
    payment_id = by_hand(shop)
    return [confirm(shop.people.admin, payment_id, "TXN-1", "a"), Expire(payment_id)]


def confirm_and_expire_by_card(shop: CardShop) -> list[Operation]:
    payment_id, intent = paid_at_stripe(shop)
    return [confirm(shop.people.patient, payment_id, intent, "a"), Expire(payment_id)]


def confirm_and_webhook(shop: CardShop) -> list[Operation]:
    payment_id, intent = paid_at_stripe(shop)
    return [confirm(shop.people.patient, payment_id, intent, "a"), succeeded(shop, intent)]


def twin_webhooks(shop: CardShop) -> list[Operation]:
    _, intent = paid_at_stripe(shop)
    return [succeeded(shop, intent)] * 2


def cancel_and_checkout(shop: CardShop) -> list[Operation]:
    payment_id = pending(shop)
    return [cancel(shop.people.patient, payment_id, "a"), checkout(shop.people.patient, payment_id, "b")]


def confirm_cancel_and_expire(shop: CardShop) -> list[Operation]:
    payment_id = by_hand(shop)
    return [
        confirm(shop.people.admin, payment_id, "TXN-1", "a"),
        cancel(shop.people.patient, payment_id, "b"),
        Expire(payment_id),
    ]


def confirm_webhook_and_cancel(shop: CardShop) -> list[Operation]:
    payment_id, intent = paid_at_stripe(shop)
    return [
        confirm(shop.people.patient, payment_id, intent, "a"),
        succeeded(shop, intent),
        cancel(shop.people.patient, payment_id, "b"),
    ]


def pay_and_cancel_and_expire(shop: CardShop) -> list[Operation]:
    """The patient pays in the very moment in which the payment ends."""
    payment_id, intent = open_by_card(shop.people, CONSULTATION)
    return [
        PayAtStripe(shop.fake, intent),
        cancel(shop.people.patient, payment_id, "a"),
        Expire(payment_id),
    ]


# Refunds.


def refunds(shop: CardShop) -> list[Operation]:
    """Of 5000, so that there is room for one of them."""
    payment_id, _ = completed(shop)
    return [refund(shop.people.admin, payment_id, 3000, key) for key in "ab"]


def refunds_that_fit(shop: CardShop) -> list[Operation]:
    payment_id, _ = completed(shop)
    return [refund(shop.people.admin, payment_id, 2500, key) for key in "ab"]


def twin_refunds(shop: CardShop) -> list[Operation]:
    return [refund(shop.people.admin, completed(shop)[0], 2000, "a")] * 2


def refund_and_webhook(shop: CardShop) -> list[Operation]:
    """Of 5000, 2000 were returned at Stripe's dashboard."""
    payment_id, intent = completed(shop)
    return [refund(shop.people.admin, payment_id, 2500, "a"), returned_elsewhere(shop, intent, 200_000)]


def resumes(shop: CardShop) -> list[Operation]:
    return [Resume(lost_refund(shop, applied=False))] * 2


def resumes_of_what_was_made(shop: CardShop) -> list[Operation]:
    return [Resume(lost_refund(shop, applied=True))] * 2


def resume_and_webhook(shop: CardShop) -> list[Operation]:
    refund_id = lost_refund(shop, applied=True)
    (made,) = shop.fake.refunds
    return [Resume(refund_id), webhook(shop.fake.refund_event("created", made))]


def refunds_and_webhook(shop: CardShop) -> list[Operation]:
    payment_id, intent = completed(shop)
    return [
        refund(shop.people.admin, payment_id, 1500, "a"),
        refund(shop.people.admin, payment_id, 2000, "b"),
        returned_elsewhere(shop, intent, 100_000),
    ]


PAIRS: list[Prepare] = [
    creates,
    twin_creates,
    creates_of_one_key,
    create_and_cancel,
    create_and_late_money,
    confirms,
    twin_confirms,
    confirm_and_cancel,
    confirm_and_cancel_by_card,
    confirm_and_expire,
    confirm_and_expire_by_card,
    confirm_and_webhook,
    twin_webhooks,
    cancel_and_checkout,
    refunds,
    refunds_that_fit,
    twin_refunds,
    refund_and_webhook,
    resumes,
    resumes_of_what_was_made,
    resume_and_webhook,
]
TRIPLES: list[Prepare] = [
    three_creates,
    confirm_cancel_and_expire,
    confirm_webhook_and_cancel,
    pay_and_cancel_and_expire,
    refunds_and_webhook,
]

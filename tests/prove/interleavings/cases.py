"""Which operations race for a payment, and from where: each case makes it as it is before, and says what is done.

Stripe's part is played by the fake one over real HTTP; what is paid by hand is confirmed by staff.
"""

from collections.abc import Callable

from tests.prove.states import (
    CONSULTATION,
    by_hand,
    completed,
    dispute_ended,
    disputed,
    lost_refund,
    paid_at_stripe,
    pending,
    refund_to_be_sent,
    requested_refund,
    returned_elsewhere,
    succeeded,
)
from tests.support.links import payer_of
from tests.support.operations import (
    Expire,
    Operation,
    PayAtStripe,
    Resume,
    approve,
    cancel,
    checkout,
    close,
    confirm,
    create,
    refund,
    reject,
    revoke,
    settle,
    webhook,
)
from tests.support.stripe_apps import StripeApp, open_by_card

Prepare = Callable[[StripeApp], list[Operation]]


# Creates.


def creates(stripe_app: StripeApp) -> list[Operation]:
    patient = stripe_app.people.patient
    return [create(patient, CONSULTATION, "a"), create(patient, CONSULTATION, "b")]


def twin_creates(stripe_app: StripeApp) -> list[Operation]:
    return [create(stripe_app.people.patient, CONSULTATION, "a")] * 2


def creates_of_one_key(stripe_app: StripeApp) -> list[Operation]:
    return [
        create(stripe_app.people.patient, CONSULTATION, "a"),
        create(stripe_app.people.patient, CONSULTATION + 1, "a"),
    ]


def three_creates(stripe_app: StripeApp) -> list[Operation]:
    patient = stripe_app.people.patient
    return [*twin_creates(stripe_app), create(patient, CONSULTATION, "b")]


def create_and_cancel(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [create(stripe_app.people.patient, CONSULTATION, "a"), cancel(stripe_app.people.patient, payment_id, "b")]


def create_and_late_money(stripe_app: StripeApp) -> list[Operation]:
    """A payment that expired, and was paid all the same while the patient begins another one."""
    payment_id = by_hand(stripe_app)
    Expire(payment_id).do(stripe_app.app)
    return [
        create(stripe_app.people.patient, CONSULTATION, "a"),
        confirm(stripe_app.people.admin, payment_id, "TXN-1", "b"),
    ]


# By a payment link.


def create_by_link_and_revoke(stripe_app: StripeApp) -> list[Operation]:
    payer = payer_of(stripe_app.people, CONSULTATION)
    return [create(payer, CONSULTATION, "a"), revoke(stripe_app.people.admin, CONSULTATION, payer.link_id)]


def creates_by_patient_and_link(stripe_app: StripeApp) -> list[Operation]:
    people = stripe_app.people
    return [create(people.patient, CONSULTATION, "a"), create(payer_of(people, CONSULTATION), CONSULTATION, "b")]


def checkout_by_link_and_revoke(stripe_app: StripeApp) -> list[Operation]:
    """Of a session that is open: one that is opened meanwhile stays at Stripe, and nobody is given it."""
    payment_id, _ = open_by_card(stripe_app.people, CONSULTATION)
    payer = payer_of(stripe_app.people, CONSULTATION)
    return [checkout(payer, payment_id, "a"), revoke(stripe_app.people.admin, CONSULTATION, payer.link_id)]


# What closes a consultation.


def create_and_close(stripe_app: StripeApp) -> list[Operation]:
    return [create(stripe_app.people.patient, CONSULTATION, "a"), close(stripe_app.people.admin, CONSULTATION)]


def twin_closes(stripe_app: StripeApp) -> list[Operation]:
    by_hand(stripe_app)
    return [close(stripe_app.people.admin, CONSULTATION)] * 2


def late_money_and_close(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    Expire(payment_id).do(stripe_app.app)
    return [
        confirm(stripe_app.people.admin, payment_id, "TXN-1", "a"),
        close(stripe_app.people.admin, CONSULTATION),
    ]


def checkout_and_close(stripe_app: StripeApp) -> list[Operation]:
    payment_id = pending(stripe_app)
    return [checkout(stripe_app.people.patient, payment_id, "a"), close(stripe_app.people.admin, CONSULTATION)]


def pay_and_close(stripe_app: StripeApp) -> list[Operation]:
    """The patient pays in the very moment in which the consultation is closed."""
    _, intent = open_by_card(stripe_app.people, CONSULTATION)
    return [PayAtStripe(stripe_app.fake, intent), close(stripe_app.people.admin, CONSULTATION)]


def create_cancel_and_close(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [
        cancel(stripe_app.people.patient, payment_id, "a"),
        create(stripe_app.people.patient, CONSULTATION, "b"),
        close(stripe_app.people.admin, CONSULTATION),
    ]


# Confirms and what ends a payment.


def confirms(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [confirm(stripe_app.people.admin, payment_id, f"TXN-{key}", key) for key in "ab"]


def twin_confirms(stripe_app: StripeApp) -> list[Operation]:
    return [confirm(stripe_app.people.admin, by_hand(stripe_app), "TXN-1", "a")] * 2


def confirm_and_cancel(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [
        confirm(stripe_app.people.admin, payment_id, "TXN-1", "a"),
        cancel(stripe_app.people.patient, payment_id, "b"),
    ]


def confirm_and_cancel_by_card(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = paid_at_stripe(stripe_app)
    return [
        confirm(stripe_app.people.patient, payment_id, intent, "a"),
        cancel(stripe_app.people.patient, payment_id, "b"),
    ]


def confirm_and_expire(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [confirm(stripe_app.people.admin, payment_id, "TXN-1", "a"), Expire(payment_id)]


def confirm_and_expire_by_card(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = paid_at_stripe(stripe_app)
    return [confirm(stripe_app.people.patient, payment_id, intent, "a"), Expire(payment_id)]


def confirm_and_webhook(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = paid_at_stripe(stripe_app)
    return [confirm(stripe_app.people.patient, payment_id, intent, "a"), succeeded(stripe_app, intent)]


def twin_webhooks(stripe_app: StripeApp) -> list[Operation]:
    _, intent = paid_at_stripe(stripe_app)
    return [succeeded(stripe_app, intent)] * 2


def cancel_and_checkout(stripe_app: StripeApp) -> list[Operation]:
    payment_id = pending(stripe_app)
    return [cancel(stripe_app.people.patient, payment_id, "a"), checkout(stripe_app.people.patient, payment_id, "b")]


def confirm_cancel_and_expire(stripe_app: StripeApp) -> list[Operation]:
    payment_id = by_hand(stripe_app)
    return [
        confirm(stripe_app.people.admin, payment_id, "TXN-1", "a"),
        cancel(stripe_app.people.patient, payment_id, "b"),
        Expire(payment_id),
    ]


def confirm_webhook_and_cancel(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = paid_at_stripe(stripe_app)
    return [
        confirm(stripe_app.people.patient, payment_id, intent, "a"),
        succeeded(stripe_app, intent),
        cancel(stripe_app.people.patient, payment_id, "b"),
    ]


def pay_and_cancel_and_expire(stripe_app: StripeApp) -> list[Operation]:
    """The patient pays in the very moment in which the payment ends."""
    payment_id, intent = open_by_card(stripe_app.people, CONSULTATION)
    return [
        PayAtStripe(stripe_app.fake, intent),
        cancel(stripe_app.people.patient, payment_id, "a"),
        Expire(payment_id),
    ]


# Refunds.


def refunds(stripe_app: StripeApp) -> list[Operation]:
    """Of 5000, so that there is room for one of them."""
    payment_id, _ = completed(stripe_app)
    return [refund(stripe_app.people.admin, payment_id, 3000, key) for key in "ab"]


def refunds_that_fit(stripe_app: StripeApp) -> list[Operation]:
    payment_id, _ = completed(stripe_app)
    return [refund(stripe_app.people.admin, payment_id, 2500, key) for key in "ab"]


def twin_refunds(stripe_app: StripeApp) -> list[Operation]:
    return [refund(stripe_app.people.admin, completed(stripe_app)[0], 2000, "a")] * 2


def refund_and_webhook(stripe_app: StripeApp) -> list[Operation]:
    """Of 5000, 2000 were returned at Stripe's dashboard."""
    payment_id, intent = completed(stripe_app)
    return [refund(stripe_app.people.admin, payment_id, 2500, "a"), returned_elsewhere(stripe_app, intent, 200_000)]


def resumes(stripe_app: StripeApp) -> list[Operation]:
    return [Resume(lost_refund(stripe_app, applied=False))] * 2


def resumes_of_what_was_made(stripe_app: StripeApp) -> list[Operation]:
    return [Resume(lost_refund(stripe_app, applied=True))] * 2


def resume_and_webhook(stripe_app: StripeApp) -> list[Operation]:
    refund_id = lost_refund(stripe_app, applied=True)
    (made,) = stripe_app.fake.refunds
    return [Resume(refund_id), webhook(stripe_app.fake.refund_event("created", made))]


def refunds_and_webhook(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = completed(stripe_app)
    return [
        refund(stripe_app.people.admin, payment_id, 1500, "a"),
        refund(stripe_app.people.admin, payment_id, 2000, "b"),
        returned_elsewhere(stripe_app, intent, 100_000),
    ]


def approvals(stripe_app: StripeApp) -> list[Operation]:
    second, refund_id = stripe_app.people.another_admin(), requested_refund(stripe_app)
    return [approve(second, refund_id, key) for key in "ab"]


def approve_and_reject(stripe_app: StripeApp) -> list[Operation]:
    second, refund_id = stripe_app.people.another_admin(), requested_refund(stripe_app)
    return [approve(second, refund_id, "a"), reject(second, refund_id, "b")]


def approve_and_refund(stripe_app: StripeApp) -> list[Operation]:
    """Of 5000, 3000 are requested already, so the other refund does not fit."""
    second, refund_id = stripe_app.people.another_admin(), requested_refund(stripe_app)
    payment_id = stripe_app.people.admin.get(f"/refunds/{refund_id}").json["data"]["payment_id"]
    return [approve(second, refund_id, "a"), refund(stripe_app.people.admin, payment_id, 2500, "b")]


def dispute_and_approve(stripe_app: StripeApp) -> list[Operation]:
    second, refund_id = stripe_app.people.another_admin(), requested_refund(stripe_app)
    (intent,) = stripe_app.fake.intents
    return [disputed(stripe_app, intent)[1], approve(second, refund_id, "a")]


def transfers_by_hand(stripe_app: StripeApp) -> list[Operation]:
    refund_id = refund_to_be_sent(stripe_app)
    return [settle(stripe_app.people.admin, refund_id, f"OUT-{key}", key) for key in "ab"]


def approve_reject_and_dispute(stripe_app: StripeApp) -> list[Operation]:
    (dispute, approval) = dispute_and_approve(stripe_app)
    refund_id = stripe_app.people.admin.get("/refunds").json["data"][0]["id"]
    return [dispute, approval, reject(stripe_app.people.another_admin(), refund_id, "b")]


def dispute_and_refund(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = completed(stripe_app)
    return [disputed(stripe_app, intent)[1], refund(stripe_app.people.admin, payment_id, 2000, "a")]


def dispute_and_resume(stripe_app: StripeApp) -> list[Operation]:
    refund_id = lost_refund(stripe_app, applied=False)
    (intent,) = stripe_app.fake.intents
    return [disputed(stripe_app, intent)[1], Resume(refund_id)]


def win_and_refund(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = completed(stripe_app)
    dispute_id, opened = disputed(stripe_app, intent)
    opened.do(stripe_app.app)
    return [dispute_ended(stripe_app, dispute_id, "won"), refund(stripe_app.people.admin, payment_id, 2000, "a")]


def events_of_a_dispute(stripe_app: StripeApp) -> list[Operation]:
    _, intent = completed(stripe_app)
    dispute_id, opened = disputed(stripe_app, intent)
    return [opened, dispute_ended(stripe_app, dispute_id, "lost")]


def dispute_and_returned_elsewhere(stripe_app: StripeApp) -> list[Operation]:
    _, intent = completed(stripe_app)
    return [disputed(stripe_app, intent)[1], returned_elsewhere(stripe_app, intent, 200_000)]


def dispute_refund_and_end(stripe_app: StripeApp) -> list[Operation]:
    payment_id, intent = completed(stripe_app)
    dispute_id, opened = disputed(stripe_app, intent)
    return [
        opened,
        refund(stripe_app.people.admin, payment_id, 2000, "a"),
        dispute_ended(stripe_app, dispute_id, "won"),
    ]


PAIRS: list[Prepare] = [
    creates,
    twin_creates,
    creates_of_one_key,
    create_and_cancel,
    create_and_late_money,
    create_by_link_and_revoke,
    creates_by_patient_and_link,
    checkout_by_link_and_revoke,
    create_and_close,
    twin_closes,
    late_money_and_close,
    checkout_and_close,
    pay_and_close,
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
    approvals,
    approve_and_reject,
    approve_and_refund,
    dispute_and_approve,
    transfers_by_hand,
    dispute_and_refund,
    dispute_and_resume,
    win_and_refund,
    events_of_a_dispute,
    dispute_and_returned_elsewhere,
]
TRIPLES: list[Prepare] = [
    three_creates,
    create_cancel_and_close,
    confirm_cancel_and_expire,
    confirm_webhook_and_cancel,
    pay_and_cancel_and_expire,
    refunds_and_webhook,
    approve_reject_and_dispute,
    dispute_refund_and_end,
]

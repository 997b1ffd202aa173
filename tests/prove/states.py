"""A payment as it is before something happens to it."""

from dataclasses import replace

from tests.support.operations import Operation, webhook
from tests.support.stripe_apps import StripeApp, open_by_card, pay_by_card, refund

CONSULTATION = 5


def pending(stripe_app: StripeApp) -> int:
    """A payment by card whose session nobody has opened."""
    payment_id: int = stripe_app.people.patient.pay(CONSULTATION).json["data"]["payment_id"]
    return payment_id


def by_hand(stripe_app: StripeApp) -> int:
    """A pending payment that staff confirm."""
    answer = stripe_app.people.patient.pay(CONSULTATION, payment_method="gcash")
    payment_id: int = answer.json["data"]["payment_id"]
    return payment_id


def paid_at_stripe(stripe_app: StripeApp) -> tuple[int, str]:
    """A pending payment that the patient has paid, which nobody has told us yet."""
    payment_id, intent = open_by_card(stripe_app.people, CONSULTATION)
    stripe_app.fake.pay(intent)
    return payment_id, intent


def completed(stripe_app: StripeApp) -> tuple[int, str]:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, CONSULTATION)
    (intent,) = stripe_app.fake.intents
    return payment_id, intent


def succeeded(stripe_app: StripeApp, intent: str) -> Operation:
    return webhook(stripe_app.fake.intent_event("succeeded", intent))


def returned_elsewhere(stripe_app: StripeApp, intent: str, amount_minor: int) -> Operation:
    made = stripe_app.fake.refund_in_dashboard(intent, amount_minor)
    return webhook(stripe_app.fake.refund_event("created", made["id"]))


def disputed(stripe_app: StripeApp, intent: str) -> tuple[str, Operation]:
    """The patient's bank takes the money back: the dispute's id, and the event that tells of it."""
    dispute_id = stripe_app.fake.dispute(intent)
    return dispute_id, webhook(stripe_app.fake.dispute_event("created", dispute_id))


def dispute_ended(stripe_app: StripeApp, dispute_id: str, status: str) -> Operation:
    stripe_app.fake.move_dispute(dispute_id, status)
    return webhook(stripe_app.fake.dispute_event("closed", dispute_id))


def requested_refund(stripe_app: StripeApp, amount: int = 3000) -> int:
    """A refund by card that waits for another admin's approval."""
    payment_id, _ = completed(stripe_app)
    config = stripe_app.app.config
    settings = config["SETTINGS"]
    config["SETTINGS"] = replace(settings, refund_approval_above_minor=0)
    try:
        answer = refund(stripe_app.people.admin, payment_id, key="requested", amount=amount)
    finally:
        config["SETTINGS"] = settings
    assert answer.json["data"]["refund"]["status"] == "requested"
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id


def refund_to_be_sent(stripe_app: StripeApp, amount: int = 3000) -> int:
    """A refund by hand, whose money staff have to send."""
    payment_id = by_hand(stripe_app)
    assert stripe_app.people.admin.confirm(payment_id, "IN-1").status_code == 200
    answer = refund(stripe_app.people.admin, payment_id, key="to-be-sent", amount=amount)
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id


def lost_refund(stripe_app: StripeApp, *, applied: bool) -> int:
    """An open refund of whose outcome nobody was told."""
    payment_id, _ = completed(stripe_app)
    stripe_app.fake.misbehave("drop" if applied else "error_before", should_retry=False, times=None)
    answer = refund(stripe_app.people.admin, payment_id, key="lost", amount=2000)
    stripe_app.fake.behave()
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id

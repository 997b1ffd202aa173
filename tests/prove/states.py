"""A payment as it is before something happens to it."""

from tests.support.operations import Operation, webhook
from tests.support.stripe_apps import CardShop, open_by_card, pay_by_card, refund

CONSULTATION = 5


def pending(shop: CardShop) -> int:
    """A payment by card whose session nobody has opened."""
    payment_id: int = shop.people.patient.pay(CONSULTATION).json["data"]["payment_id"]
    return payment_id


def by_hand(shop: CardShop) -> int:
    """A pending payment that staff confirm."""
    answer = shop.people.patient.pay(CONSULTATION, payment_method="gcash")
    payment_id: int = answer.json["data"]["payment_id"]
    return payment_id


def paid_at_stripe(shop: CardShop) -> tuple[int, str]:
    """A pending payment that the patient has paid, which nobody has told us yet."""
    payment_id, intent = open_by_card(shop.people, CONSULTATION)
    shop.fake.pay(intent)
    return payment_id, intent


def completed(shop: CardShop) -> tuple[int, str]:
    payment_id = pay_by_card(shop.people, shop.fake, CONSULTATION)
    (intent,) = shop.fake.intents
    return payment_id, intent


def succeeded(shop: CardShop, intent: str) -> Operation:
    return webhook(shop.fake.intent_event("succeeded", intent))


def returned_elsewhere(shop: CardShop, intent: str, amount_minor: int) -> Operation:
    made = shop.fake.refund_in_dashboard(intent, amount_minor)
    return webhook(shop.fake.refund_event("created", made["id"]))


def lost_refund(shop: CardShop, *, applied: bool) -> int:
    """An open refund of whose outcome nobody was told."""
    payment_id, _ = completed(shop)
    shop.fake.misbehave("drop" if applied else "error_before", should_retry=False, times=None)
    answer = refund(shop.people.admin, payment_id, key="lost", amount=2000)
    shop.fake.behave()
    refund_id: int = answer.json["data"]["refund"]["id"]
    return refund_id

"""What a gateway says of refunds, ours and those that were made elsewhere, in whatever order it says it."""

from payments_app.gateways.base import Approved, GatewayRefund
from payments_app.payments.events import Deed
from payments_app.payments.models import Payment
from payments_app.refunds.models import Refund


def follow_refund(payment: Payment, told: GatewayRefund, deed: Deed) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says of one refund."""
    refund = _find(payment, told)
    if refund is not None:
        refund.reference = refund.reference or told.reference
        refund.settle(told.outcome, deed)
    elif isinstance(told.outcome, Approved):
        Refund.record(
            payment, amount_minor=told.amount_minor, reference=told.reference, outcome=told.outcome, deed=deed
        )


def follow_total(payment: Payment, returned_minor: int, deed: Deed) -> None:
    """Bring a payment up to the total that its gateway has returned or is about to.

    What no refund that we know explains was made elsewhere; which refund it was, an event of its own tells before or
    after this one.
    """
    known_minor = sum(refund.amount_minor for refund in payment.refunds if not refund.has_failed)
    if returned_minor > known_minor:
        Refund.record(
            payment, amount_minor=returned_minor - known_minor, reference=None, outcome=Approved(""), deed=deed
        )


def _find(payment: Payment, told: GatewayRefund) -> Refund | None:
    """The refund that is meant: by the gateway's name for it, by ours, or as part of a total that is still nameless."""
    for refund in payment.refunds:
        if refund.reference == told.reference:
            return refund
    for refund in payment.refunds:
        if not refund.made_elsewhere and (refund.id, refund.amount_minor) == (told.refund_id, told.amount_minor):
            return refund
    for refund in payment.refunds:
        if refund.is_nameless and refund.amount_minor >= told.amount_minor:
            return refund.split(told.amount_minor)
    return None

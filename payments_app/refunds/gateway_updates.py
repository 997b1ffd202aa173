"""What a gateway says of refunds, ours and those that were made elsewhere, in whatever order it says it."""

from payments_app.gateways.base import Approved, Declined, GatewayRefund
from payments_app.gateways.stripe.webhooks import ChargeRefunded
from payments_app.payments.models.event import Deed
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund


def follow_refund(payment: Payment, told: GatewayRefund, deed: Deed) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says of one refund."""
    if not _is_of(payment, told.transaction_id, told.currency):
        payment.ask_for_review("refund.of_other_money", deed)
        return
    refund = _find(payment, told)
    if refund is not None:
        if refund.has_failed and not refund.was_accepted and isinstance(told.outcome, Approved):
            # Staff gave it up, or the gateway had declined it; and now it is there.
            payment.ask_for_review("refund.made_after_all", deed)
        refund.reference = refund.reference or told.reference
        refund.settle(told.outcome, deed)
    elif isinstance(told.outcome, Approved):
        _record(payment, told, told.outcome, deed)
    else:
        _remember_failed(payment, told, told.outcome, deed)


def follow_total(payment: Payment, told: ChargeRefunded, deed: Deed) -> None:
    """Bring a payment up to the total that its gateway has returned or is about to.

    What no refund that we know explains was made elsewhere; which refund it was, an event of its own tells before or
    after this one. Refunds that failed explain a total too: it may have been told before they did.
    """
    if not _is_of(payment, told.transaction_id, told.currency):
        payment.ask_for_review("refund.of_other_money", deed)
        return
    for refund in told.refunds:
        follow_refund(payment, refund, deed)
    unexplained_minor = told.returned_minor - sum(
        refund.amount_minor for refund in payment.refunds if refund.was_accepted
    )
    nameless = _nameless(payment)
    if unexplained_minor > 0 and nameless is not None:
        nameless.grow(unexplained_minor, deed)  # one row for all that has no name yet, so that names take it whole
    elif unexplained_minor > 0:
        Refund.record(payment, amount_minor=unexplained_minor, reference=None, outcome=Approved("nameless"), deed=deed)


def _is_of(payment: Payment, transaction_id: str | None, currency: str) -> bool:
    """Whether it is about the money that this payment received, or will, and not about other money sent for it."""
    return (
        transaction_id is not None and currency == payment.currency and payment.transaction_id in (None, transaction_id)
    )


def _find(payment: Payment, told: GatewayRefund) -> Refund | None:
    """The refund that is meant, by the gateway's name for it or by ours."""
    for refund in payment.refunds:
        if refund.reference == told.reference:
            return refund
    for refund in payment.refunds:
        is_ours = not refund.made_elsewhere and refund.reference is None
        if is_ours and (refund.id, refund.amount_minor) == (told.refund_id, told.amount_minor):
            return refund
    return None


def _nameless(payment: Payment) -> Refund | None:
    return next((refund for refund in payment.refunds if refund.is_nameless), None)


def _remember_failed(payment: Payment, told: GatewayRefund, outcome: Declined, deed: Deed) -> None:
    """Remember one that failed before we heard of it: older news of it may follow, and must not bring it to life."""
    Refund.remember_failed(
        payment, amount_minor=told.amount_minor, reference=told.reference, outcome=outcome, deed=deed
    )
    if _nameless(payment) is not None:  # which may have told of the one that failed, or may not
        payment.ask_for_review("refund.failed_elsewhere", deed)


def _record(payment: Payment, told: GatewayRefund, outcome: Approved, deed: Deed) -> None:
    """Record a refund that was made elsewhere; as far as a total told of it before, it only gets its name."""
    nameless = _nameless(payment)
    if nameless is None:
        Refund.record(payment, amount_minor=told.amount_minor, reference=told.reference, outcome=outcome, deed=deed)
        return
    refund = nameless.split(min(told.amount_minor, nameless.amount_minor))
    refund.reference = told.reference
    if told.amount_minor > refund.amount_minor:
        refund.grow(told.amount_minor - refund.amount_minor, deed)

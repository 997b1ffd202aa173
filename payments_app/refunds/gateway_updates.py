"""What a gateway says of refunds, ours and those that were made elsewhere, in whatever order it says it."""

from payments_app.gateways.base import Approved, Declined, GatewayRefund
from payments_app.gateways.events import ChargeRefunded
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund


def apply_refund_update(payment: Payment, reported: GatewayRefund, context: AuditContext) -> None:
    """Bring a payment, whose row is locked, up to what its gateway says of one refund."""
    if not _is_of(payment, reported.transaction_id, reported.currency):
        payment.flag_for_review("refund.of_other_money", context)
        return
    refund = _find(payment, reported)
    if refund is not None:
        if refund.has_failed and not refund.was_accepted and isinstance(reported.outcome, Approved):
            # Staff gave it up, or the gateway had declined it; and now it is there.
            payment.flag_for_review("refund.made_after_all", context)
        refund.reference = refund.reference or reported.reference
        refund.settle(reported.outcome, context)
    elif isinstance(reported.outcome, Approved):
        _record(payment, reported, reported.outcome, context)
    else:
        _record_failed(payment, reported, reported.outcome, context)


def reconcile_refunded_total(payment: Payment, reported: ChargeRefunded, context: AuditContext) -> None:
    """Bring a payment up to the total that its gateway has returned or is about to.

    What no refund that we know explains was made elsewhere; which refund it was, an event of its own tells before or
    after this one. Refunds that failed explain a total too: it may have been told before they did.
    """
    if not _is_of(payment, reported.transaction_id, reported.currency):
        payment.flag_for_review("refund.of_other_money", context)
        return
    for refund in reported.refunds:
        apply_refund_update(payment, refund, context)
    unexplained_minor = reported.returned_minor - sum(
        refund.amount_minor for refund in payment.refunds if refund.was_accepted
    )
    nameless = _unattributed(payment)
    if unexplained_minor > 0 and nameless is not None:
        nameless.increase(
            unexplained_minor, context
        )  # one row for all that has no name yet, so that names take it whole
    elif unexplained_minor > 0:
        Refund.record(
            payment, amount_minor=unexplained_minor, reference=None, outcome=Approved("nameless"), context=context
        )


def _is_of(payment: Payment, transaction_id: str | None, currency: str) -> bool:
    """Whether it is about the money that this payment received, or will, and not about other money sent for it."""
    return (
        transaction_id is not None and currency == payment.currency and payment.transaction_id in (None, transaction_id)
    )


def _find(payment: Payment, reported: GatewayRefund) -> Refund | None:
    """The refund that is meant, by the gateway's name for it or by ours."""
    for refund in payment.refunds:
        if refund.reference == reported.reference:
            return refund
    for refund in payment.refunds:
        is_ours = not refund.made_elsewhere and refund.reference is None
        if is_ours and (refund.id, refund.amount_minor) == (reported.refund_id, reported.amount_minor):
            return refund
    return None


def _unattributed(payment: Payment) -> Refund | None:
    return next((refund for refund in payment.refunds if refund.is_unattributed), None)


def _record_failed(payment: Payment, reported: GatewayRefund, outcome: Declined, context: AuditContext) -> None:
    """Remember one that failed before we heard of it: older news of it may follow, and must not bring it to life."""
    Refund.record_failed(
        payment, amount_minor=reported.amount_minor, reference=reported.reference, outcome=outcome, context=context
    )
    if _unattributed(payment) is not None:  # which may have told of the one that failed, or may not
        payment.flag_for_review("refund.failed_elsewhere", context)


def _record(payment: Payment, reported: GatewayRefund, outcome: Approved, context: AuditContext) -> None:
    """Record a refund that was made elsewhere; as far as a total told of it before, it only gets its name."""
    nameless = _unattributed(payment)
    if nameless is None:
        Refund.record(
            payment, amount_minor=reported.amount_minor, reference=reported.reference, outcome=outcome, context=context
        )
        return
    refund = nameless.split(min(reported.amount_minor, nameless.amount_minor))
    refund.reference = reported.reference
    if reported.amount_minor > refund.amount_minor:
        refund.increase(reported.amount_minor - refund.amount_minor, context)

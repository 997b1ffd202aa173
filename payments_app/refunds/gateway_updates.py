"""Applies a gateway's reports about refunds, made here or elsewhere. Reports may arrive in any order."""

from sqlalchemy.orm import Session

from payments_app.gateways.base import Approved, Declined, GatewayRefund
from payments_app.gateways.events import ChargeRefunded
from payments_app.payments.gateway_updates import flag_once
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund


def apply_refund_update(session: Session, payment: Payment, reported: GatewayRefund, context: AuditContext) -> None:
    """Apply the gateway's report about one refund to the payment, whose row is locked."""
    if not _is_about(payment, reported.transaction_id, reported.currency):
        flag_once(session, payment, "refund.of_other_money", reported.transaction_id, context)
        return
    refund = _find(payment, reported)
    if refund is not None:
        if refund.has_failed and not refund.was_accepted and isinstance(reported.outcome, Approved):
            # Staff gave it up, or the gateway declined it, and now the gateway reports it as made.
            payment.flag_for_review("refund.made_after_all", context.about_refund(refund, refund.amount_minor))
        refund.reference = refund.reference or reported.reference
        refund.settle(reported.outcome, context)
    elif isinstance(reported.outcome, Approved):
        _record(payment, reported, reported.outcome, context)
    else:
        _record_failed(payment, reported, reported.outcome, context)


def reconcile_refunded_total(
    session: Session, payment: Payment, reported: ChargeRefunded, context: AuditContext
) -> None:
    """Apply the gateway's total of refunds, settled and pending, to the payment.

    If known refunds do not add up to the total, the difference was made elsewhere; a separate event, before or after
    this one, names that refund. Failed refunds count too: the total may be older than their failure.
    """
    if not _is_about(payment, reported.transaction_id, reported.currency):
        flag_once(session, payment, "refund.of_other_money", reported.transaction_id, context)
        return
    for refund in reported.refunds:
        apply_refund_update(session, payment, refund, context)
    unexplained_minor = reported.returned_minor - sum(
        refund.amount_minor for refund in payment.refunds if refund.was_accepted
    )
    unattributed = _unattributed(payment)
    if unexplained_minor > 0 and unattributed is not None:
        # One row for the whole unattributed amount, so that refunds can be split off as their events arrive.
        unattributed.increase(unexplained_minor, context)
    elif unexplained_minor > 0:
        Refund.record(
            payment, amount_minor=unexplained_minor, reference=None, outcome=Approved("unattributed"), context=context
        )


def _is_about(payment: Payment, transaction_id: str | None, currency: str) -> bool:
    """Whether the report is about this payment's transaction, or may be, and not about another transfer for it."""
    return (
        transaction_id is not None and currency == payment.currency and payment.transaction_id in (None, transaction_id)
    )


def _find(payment: Payment, reported: GatewayRefund) -> Refund | None:
    """The refund that the report is about, found by the gateway's reference or by our id."""
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
    """Record a refund that failed before it was first reported: an older report may follow, and must not reopen it."""
    failed = Refund.record_failed(
        payment, amount_minor=reported.amount_minor, reference=reported.reference, outcome=outcome, context=context
    )
    if _unattributed(payment) is not None:  # that total may include the failed refund
        payment.flag_for_review("refund.failed_elsewhere", context.about_refund(failed, failed.amount_minor))


def _record(payment: Payment, reported: GatewayRefund, outcome: Approved, context: AuditContext) -> None:
    """Record a refund that was made elsewhere. If an unattributed total includes it, split it off that total."""
    unattributed = _unattributed(payment)
    if unattributed is None:
        Refund.record(
            payment, amount_minor=reported.amount_minor, reference=reported.reference, outcome=outcome, context=context
        )
        return
    refund = unattributed.split_off(min(reported.amount_minor, unattributed.amount_minor))
    refund.reference = reported.reference
    if reported.amount_minor > refund.amount_minor:
        refund.increase(reported.amount_minor - refund.amount_minor, context)

"""The payment: its table, its constraints, and the verbs that change its status and amounts."""

from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    and_,
    false,
    inspect,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, object_session, relationship

from payments_app.db.base import Base, BigId, UtcDateTime, constant, in_check
from payments_app.errors import InvalidTransition, PaymentDisputed
from payments_app.gateways.base import Charge
from payments_app.gateways.references import BY_HAND, MAX_NORMALIZED_LENGTH, normalized_reference
from payments_app.invoices.models import Invoice, TaxRecord
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.status import ACTIVE, ENDED_UNPAID, MOVES, PAID, REFUNDABLE, PaymentStatus

if TYPE_CHECKING:
    from payments_app.payments.models.credit_note import CreditNote
    from payments_app.payments.models.refund import Refund

# The predicate of the index below. On PostgreSQL an ON CONFLICT with another predicate finds no index.
ACTIVE_PREDICATE: Final = text(f"{in_check('status', ACTIVE)} AND deleted_at IS NULL")

# Payments by hand whose reference is not in the index on ``normalized_reference``: an earlier payment has the same
# reference in another spelling, or a release that did not compare references confirmed the payment.
REFERENCE_ALONE: Final = text(f"gateway = '{BY_HAND}' AND transaction_id IS NOT NULL AND normalized_reference IS NULL")


class Payment(Base):
    """One attempt to pay one consultation. Amounts are in minor units. Only the verbs below change a row."""

    __tablename__ = "payments"
    __table_args__ = (
        # Both columns: the database itself ensures that a payment belongs to the patient of its consultation.
        ForeignKeyConstraint(
            ["consultation_id", "user_id"],
            ["consultations.id", "consultations.patient_id"],
            name="fk_payments_consultation_patient",
        ),
        # The last line of defence: one active payment per consultation, for any number of simultaneous requests.
        Index(
            "uq_payments_active_consultation",
            "consultation_id",
            unique=True,
            postgresql_where=ACTIVE_PREDICATE,
            sqlite_where=ACTIVE_PREDICATE,
        ),
        # One transaction at a gateway pays one payment. Nulls are distinct on both databases.
        UniqueConstraint("gateway", "payment_method", "transaction_id", name="uq_payments_transaction"),
        # The same for a transfer by hand, in any spelling of its reference.
        Index(
            "uq_payments_normalized_reference",
            "gateway",
            "payment_method",
            "normalized_reference",
            unique=True,
            postgresql_where=text("normalized_reference IS NOT NULL"),
            sqlite_where=text("normalized_reference IS NOT NULL"),
        ),
        # The few payments by hand that are not in the index above: each confirm by hand compares with them.
        Index(
            "ix_payments_reference_alone",
            "payment_method",
            "id",
            postgresql_where=REFERENCE_ALONE,
            sqlite_where=REFERENCE_ALONE,
        ),
        Index("ix_payments_user_history", "user_id", "created_at", "id"),
        Index("ix_payments_history", "created_at", "id"),
        # For lists by status: few payments are refunded, and most are not.
        Index("ix_payments_status_history", "status", "created_at", "id"),
        Index("ix_payments_consultation_history", "consultation_id", "created_at", "id"),
        Index("ix_payments_method_history", "payment_method", "created_at", "id"),
        # For lists by the time of completion, and by the gateway's transaction. A create does not write to them.
        Index(
            "ix_payments_completed",
            "completed_at",
            postgresql_where=text("completed_at IS NOT NULL"),
            sqlite_where=text("completed_at IS NOT NULL"),
        ),
        Index(
            "ix_payments_transaction",
            "transaction_id",
            postgresql_where=text("transaction_id IS NOT NULL"),
            sqlite_where=text("transaction_id IS NOT NULL"),
        ),
        # For the search of the front desk, by the beginning of a transaction.
        Index(
            "ix_payments_transaction_search",
            "transaction_id",
            postgresql_ops={"transaction_id": "text_pattern_ops"},
            postgresql_where=text("transaction_id IS NOT NULL"),
            sqlite_where=text("transaction_id IS NOT NULL"),
        ),
        # The few payments in review: counted for the metrics, and listed by the audit.
        Index("ix_payments_review", "id", postgresql_where=text("needs_review"), sqlite_where=text("needs_review = 1")),
        CheckConstraint(in_check("status", PaymentStatus), name="status_known"),
        CheckConstraint("version >= 0", name="version_not_negative"),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint(
            "received_minor >= 0 AND refund_reserved_minor >= 0 AND refunded_minor >= 0", name="money_not_negative"
        ),
        # Reserved and completed refunds together never exceed the money received.
        CheckConstraint("refund_reserved_minor + refunded_minor <= received_minor", name="refunds_within_received"),
        CheckConstraint(
            f"NOT ({in_check('status', PAID)}) OR (received_minor > 0 AND transaction_id IS NOT NULL"
            " AND completed_at IS NOT NULL)",
            name="paid_has_money",
        ),
        CheckConstraint(
            f"deleted_at IS NULL OR ({in_check('status', ENDED_UNPAID)} AND received_minor = 0)",
            name="deleted_without_money",
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(BigId)
    consultation_id: Mapped[int] = mapped_column(BigId)
    amount_minor: Mapped[int] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    payment_method: Mapped[str] = mapped_column(String(32))
    gateway: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(32))
    transaction_id: Mapped[str | None] = mapped_column(String(255))
    # For payments by hand: the common form of all spellings of the transaction_id (gateways/references.py).
    normalized_reference: Mapped[str | None] = mapped_column(String(MAX_NORMALIZED_LENGTH))
    receipt_url: Mapped[str | None] = mapped_column(String(2048))
    received_minor: Mapped[int] = mapped_column(BigId)
    # The sum of open refunds (requested, pending and unknown), and the sum of succeeded ones.
    refund_reserved_minor: Mapped[int] = mapped_column(BigId)
    refunded_minor: Mapped[int] = mapped_column(BigId)
    needs_review: Mapped[bool]
    # Only staff can end the review. The default lets older releases, which do not know the column, still insert.
    review_sticky: Mapped[bool] = mapped_column("review_held", server_default=false())
    # The patient's bank took the money back, or may: nothing is refunded. With a default, as above.
    is_disputed: Mapped[bool] = mapped_column(server_default=false())
    # A dispute or an inquiry is a reason for the review, and its good end ends that reason. With a default, as above.
    review_of_dispute: Mapped[bool] = mapped_column(server_default=false())
    version: Mapped[int] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    invoices: Mapped[list[Invoice]] = relationship(order_by=Invoice.id)
    tax_records: Mapped[list[TaxRecord]] = relationship(order_by=TaxRecord.id, viewonly=True)  # they never change
    # Named by string, because refund.py imports this module. Never loaded lazily: a read in the middle of an effect
    # would flush the first half of it, and raise the version twice.
    refunds: Mapped[list["Refund"]] = relationship(order_by="Refund.id", back_populates="payment", lazy="raise")
    # Read only where a note is issued or made void, in a flush, which begins no other one.
    credit_notes: Mapped[list["CreditNote"]] = relationship(order_by="CreditNote.id")

    __mapper_args__ = {  # a plain dict, as SQLAlchemy expects
        "version_id_col": version,
        "version_id_generator": lambda version: 0 if version is None else version + 1,
    }

    @hybrid_property
    def is_active(self) -> bool:
        """Whether this payment occupies its consultation."""
        return self.status in ACTIVE and self.deleted_at is None

    @is_active.inplace.expression
    @classmethod
    def _is_active_expression(cls) -> ColumnElement[bool]:
        statuses: list[ColumnElement[str]] = [constant(status) for status in ACTIVE]
        return and_(cls.status.in_(statuses), cls.deleted_at.is_(None))

    @property
    def charge(self) -> Charge:
        """The charge in the form that gateways take."""
        return Charge(
            payment_id=self.id,
            consultation_id=self.consultation_id,
            amount_minor=self.amount_minor,
            currency=self.currency,
            payment_method=self.payment_method,
        )

    @property
    def left_minor(self) -> int:
        """Minor units received, minus reserved and refunded by us or elsewhere."""
        return self.received_minor - self.refund_reserved_minor - self.refunded_minor

    @property
    def refundable_minor(self) -> int:
        """How much may be refunded: all that is left, and nothing while the patient's bank disputes the payment."""
        return 0 if self.is_disputed else self.left_minor

    def was_completed_by(self, transaction_id: str) -> bool:
        """Whether this transaction completed the payment, so that confirming with it again is a retry."""
        return self.completed_at is not None and self._is_transaction(transaction_id)

    def _is_transaction(self, transaction_id: str) -> bool:
        """Whether this is the payment's transaction, in any spelling."""
        if self.transaction_id is None or self.transaction_id == transaction_id:
            return self.transaction_id == transaction_id
        normalized = normalized_reference(self.gateway, transaction_id)
        # Computed, not read from the column: it is null if another payment shares the reference, or if an older release
        # confirmed this payment.
        return normalized is not None and normalized == normalized_reference(self.gateway, self.transaction_id)

    def _name_transaction(self, transaction_id: str) -> None:
        self.transaction_id = transaction_id
        self.normalized_reference = normalized_reference(self.gateway, transaction_id)

    def require_move(self, to: PaymentStatus) -> None:
        """Check that the payment may move to a status.

        Raises:
            InvalidTransition: the payment's status does not allow it (409).
        """
        if to not in MOVES[self.status]:
            raise InvalidTransition(payment_status=self.status)

    # Before there is money

    def begin_processing(self, context: AuditContext) -> None:
        """Mark the payment processing: the gateway reports that the money is on its way."""
        self._move(PaymentStatus.PROCESSING, "payment.processing", context)

    def note(self, event: str, context: AuditContext) -> None:
        """Append an event that changes neither status nor version. Lock the row first: events must stay in order."""
        # If an earlier change in this effect raises the version, the event has the raised version.
        is_changed = inspect(self).attrs.updated_at.history.has_changes()
        self._append(event, self.status, self.version + 1 if is_changed else self.version, context)

    def cancel(self, context: AuditContext) -> None:
        """Cancel the payment before any money moved.

        Raises:
            InvalidTransition: it is not pending (409); money on its way cannot be called back.
        """
        self.require_pending()
        self._end(PaymentStatus.CANCELLED, "payment.cancelled", context)

    def require_pending(self) -> None:
        """Check that the payment is pending.

        Raises:
            InvalidTransition: it is not pending (409).
        """
        if self.status != PaymentStatus.PENDING:
            raise InvalidTransition(payment_status=self.status)

    def mark_cancelled_by_gateway(self, context: AuditContext) -> None:
        """Mark the payment cancelled because its session ended at the gateway, and it can no longer be paid.

        Raises:
            InvalidTransition: it was paid, or has ended before (409).
        """
        self._end(PaymentStatus.CANCELLED, "payment.cancelled", context)

    def expire(self, context: AuditContext) -> None:
        """Mark the payment expired: it was not paid in time.

        Raises:
            InvalidTransition: it is not pending (409).
        """
        self.require_pending()
        self._end(PaymentStatus.EXPIRED, "payment.expired", context)

    def fail(self, context: AuditContext) -> None:
        """Mark the payment failed: its money was on its way and did not arrive.

        Raises:
            InvalidTransition: it was paid, or has ended before (409).
        """
        self._end(PaymentStatus.FAILED, "payment.failed", context)

    # Incoming money

    def complete(self, transaction_id: str, *, receipt_url: str | None, context: AuditContext) -> None:
        """Mark the payment completed and its invoice paid: the full amount has arrived.

        Raises:
            InvalidTransition: the payment's status does not allow it (409).
        """
        self._move(PaymentStatus.COMPLETED, "payment.completed", context)
        self._name_transaction(transaction_id)
        self.receipt_url = receipt_url
        self.received_minor = self.amount_minor
        self.completed_at = context.at
        self.deleted_at = None  # a payment that holds money is not deleted
        for invoice in self.invoices:
            invoice.pay(context.at)
        self._count_excess(context)

    def quarantine(self, transaction_id: str, *, amount_minor: int, context: AuditContext) -> None:
        """Record money that must not complete the payment, for staff to refund. The status stays."""
        self._change("payment.quarantined", context)
        self._name_transaction(transaction_id)
        self.received_minor = amount_minor
        self.needs_review = True
        self.deleted_at = None
        self._count_excess(context)

    def flag_for_review(
        self, event: str, context: AuditContext, *, sticky: bool = True, reference: str | None = None
    ) -> None:
        """Start a review by staff. A ``sticky`` one is not ended by refunds: only staff can end it.

        ``reference``: the gateway's id of the money that it is about, if that is not the payment's own transaction.
        """
        self._change(event, context, reference=reference)
        self.needs_review = True
        self.review_sticky = self.review_sticky or sticky

    def end_review(self, context: AuditContext) -> None:
        """End the review, after staff have put the problem right.

        Raises:
            InvalidTransition: the payment still holds money that has to be refunded (409).
        """
        if self._holds_unwanted_money:
            raise InvalidTransition(payment_status=self.status)
        self._change("payment.reviewed", context)
        self.needs_review = self.review_sticky = self.review_of_dispute = False

    @property
    def _holds_unwanted_money(self) -> bool:
        """Whether money that may not stay can be refunded."""
        return self.status not in PAID and self.refundable_minor > 0

    # Money that the patient's bank disputes (which disputes there are: payments/disputes.py)

    def require_undisputed(self) -> None:
        """Raises:
        PaymentDisputed: the patient's bank took the money back, or may (409).
        """
        if self.is_disputed:
            raise PaymentDisputed

    def begin_inquiry(self, context: AuditContext) -> None:
        """The patient's bank asks about the payment. It takes no money, so refunding goes on."""
        self._change("dispute.inquiry", context)
        self._review_dispute()

    def begin_dispute(self, event: str, context: AuditContext, *, amount_minor: int, currency: str) -> None:
        """The patient's bank takes the money back, or has done so: nothing is refunded from now on."""
        self._change(event, context)
        if not self.is_disputed:
            self._append("refunds.blocked", self.status, self.version + 1, context)
            self._review_refunds_before(amount_minor, currency, context)
        self.is_disputed = True
        self._review_dispute()

    def _review_refunds_before(self, amount_minor: int, currency: str, context: AuditContext) -> None:
        """Refunds that were made or sent before the dispute: with it, the patient may get money back twice."""
        requested_minor = sum(refund.amount_minor for refund in self.refunds if refund.is_requested)  # not sent yet
        returned_minor = self.refunded_minor + self.refund_reserved_minor - requested_minor
        if returned_minor and (currency != self.currency or amount_minor > self.left_minor + requested_minor):
            self._append("dispute.meets_refund", self.status, self.version + 1, context)
            self.review_sticky = True

    def review_refund_elsewhere(self, context: AuditContext) -> None:
        """A refund was made elsewhere: during a dispute, the patient may get money back twice."""
        if self.is_disputed:
            self.flag_for_review("refund.despite_dispute", context)

    def note_dispute(self, event: str, context: AuditContext) -> None:
        """There is news of a dispute that is known, and none that staff have to look at."""
        self._change(event, context)

    def end_dispute(self, event: str, context: AuditContext, *, is_disputed: bool, is_reviewed: bool) -> None:
        """A dispute is won, or an inquiry is closed; a review that it began ends, if there is no other reason for it.

        ``is_disputed``: another dispute is open or lost. ``is_reviewed``: so is another dispute or inquiry.
        """
        self._change(event, context)
        if self.is_disputed and not is_disputed:
            self._append("refunds.released", self.status, self.version + 1, context)
        self.is_disputed = is_disputed
        if self.review_of_dispute and not is_reviewed:
            self.review_of_dispute = False
            self.needs_review = self.review_sticky or self._has_excess
        # Staff may have ended the review while nothing could be refunded.
        self.needs_review = self.needs_review or self._holds_unwanted_money

    def _review_dispute(self) -> None:
        if self.needs_review and not self.review_of_dispute and self._has_reversal:
            # Nothing but the review itself says that staff have not looked at that yet.
            self.review_sticky = True
        self.needs_review = self.review_of_dispute = True

    # Outgoing money

    def require_refundable(self) -> None:
        """Check that the payment's status allows a refund.

        Raises:
            InvalidTransition: no money was received, or all of it was refunded (409).
        """
        # Money in review may be refunded in any status.
        if self.status not in REFUNDABLE and not (self.needs_review and self.received_minor > 0):
            raise InvalidTransition(payment_status=self.status)

    def reserve_refund(self, amount_minor: int, event: str, context: AuditContext) -> None:
        """Reserve money for an open refund."""
        self._change(event, context)
        self.refund_reserved_minor += amount_minor

    def approve_refund(self, context: AuditContext) -> None:
        """A refund that waited for approval is approved: its money stays reserved."""
        self._change("refund.approved", context)

    def release_refund(self, amount_minor: int, context: AuditContext) -> None:
        """An open refund failed: its reserved money is free again."""
        self._change("refund.failed", context)
        self.refund_reserved_minor -= amount_minor
        self._count_excess(context)

    def settle_refund(self, amount_minor: int, context: AuditContext) -> None:
        """An open refund succeeded."""
        self.refund_reserved_minor -= amount_minor
        self._give_back(amount_minor, "refund.succeeded", context)

    def record_refund(self, amount_minor: int, context: AuditContext) -> None:
        """A refund that was made outside this service, up to the amount that could still be refunded."""
        self._give_back(amount_minor, "refund.recorded", context)

    def reverse_refund(self, amount_minor: int, context: AuditContext) -> None:
        """A refund that had succeeded came back. The status does not move back: the payment needs a review."""
        # Beside a dispute the review has two reasons, and the end of the dispute must not end this one.
        self.flag_for_review("refund.reversed", context, sticky=self.review_of_dispute)
        self.refunded_minor -= amount_minor
        self._count_excess(context)

    def erase_refund_reasons(self, context: AuditContext) -> None:
        """Empty the reasons that staff wrote: the patient's personal data are erased. Without any, nothing changes."""
        written = [refund for refund in self.refunds if refund.reason is not None]
        if written:
            self._change("refunds.reasons_erased", context)
        for refund in written:
            refund.reason = None

    def _give_back(self, amount_minor: int, event: str, context: AuditContext) -> None:
        self.refunded_minor += amount_minor
        all_is_back = self.refunded_minor == self.received_minor
        if self.status not in REFUNDABLE or amount_minor == 0:  # money in review: only the amounts change
            self._change(event, context)
        elif all_is_back:
            self._move(PaymentStatus.REFUNDED, event, context)
            for invoice in self.invoices:
                invoice.refund()
        else:
            self._move(PaymentStatus.PARTIALLY_REFUNDED, event, context)
        if all_is_back and not self._has_excess:
            self._settle_review()

    def _settle_review(self) -> None:
        self.needs_review = self.review_sticky or self.review_of_dispute

    @property
    def _has_excess(self) -> bool:
        return any(refund.unallocated_minor for refund in self.refunds)

    @property
    def _has_reversal(self) -> bool:
        return any(refund.has_failed and refund.was_accepted for refund in self.refunds)

    def _count_excess(self, context: AuditContext) -> None:
        """Refundable money has increased: count refunds made elsewhere that exceeded it until now."""
        if not self._has_excess:
            return
        for refund in self.refunds:
            counted_minor = refund.count_excess(self.left_minor)
            of_refund = context.about_refund(refund, refund.amount_minor)
            if counted_minor and refund.is_open:
                self.reserve_refund(counted_minor, "refund.recorded", of_refund)
            elif counted_minor:
                self.record_refund(counted_minor, of_refund)
        if not self._has_excess and self.status in PAID and not self._has_reversal:
            self._settle_review()  # nothing else needs the review

    # How a change is recorded

    def _end(self, to: PaymentStatus, event: str, context: AuditContext) -> None:
        self._move(to, event, context)
        for invoice in self.invoices:
            invoice.void()

    def _move(self, to: PaymentStatus, event: str, context: AuditContext) -> None:
        self.require_move(to)
        self._change(event, context, to)

    def _change(
        self, event: str, context: AuditContext, to: PaymentStatus | None = None, *, reference: str | None = None
    ) -> None:
        # The version after this effect's flush. One effect may append several events.
        self._append(event, to or self.status, self.version + 1, context, reference)
        self.status = to or self.status
        self.updated_at = context.at

    def _append(
        self, event: str, to_status: str, version: int, context: AuditContext, reference: str | None = None
    ) -> None:
        session = object_session(self)
        assert session is not None  # noqa: S101  # for the type checker: a payment that changes is in a session
        session.add(
            PaymentEvent(
                payment=self,
                event=event,
                from_status=self.status,
                to_status=to_status,
                version=version,
                actor=context.actor,
                request_id=context.request_id,
                reference=reference,
                created_at=context.at,
                refund=context.refund,
                refund_amount_minor=context.refund_amount_minor,
                dispute=context.dispute,
            )
        )

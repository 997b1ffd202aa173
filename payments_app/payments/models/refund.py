"""Refunds: their table, and the verbs that change a refund together with its payment."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    event,
    inspect,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime, in_check
from payments_app.db.transaction import after_commit
from payments_app.gateways.base import Approved, Declined, OutcomeUnknown
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment

if TYPE_CHECKING:
    from payments_app.payments.models.credit_note import CreditNote

log = get_logger(__name__)


class RefundStatus(StrEnum):
    """``pending``: about to be sent, or accepted by the gateway. ``unknown``: sent, and the gateway did not answer."""

    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


OPEN = (RefundStatus.PENDING, RefundStatus.UNKNOWN)

# Characters; the size of the columns.
MAX_REASON_LENGTH = 500


class Refund(Base):
    """One refund, committed before the gateway is called. It changes with its payment, in one transaction."""

    __tablename__ = "refunds"
    __table_args__ = (
        ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment"),
        UniqueConstraint("gateway", "reference", name="uq_refunds_reference"),
        Index("uq_refunds_credit_note", "credit_note_id", unique=True),
        Index("ix_refunds_payment", "payment_id", "id"),
        # The few open refunds, which resume looks for among the many that are settled.
        Index(
            "ix_refunds_open",
            "leased_until",
            postgresql_where=text(in_check("status", OPEN)),
            sqlite_where=text(in_check("status", OPEN)),
        ),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("excess_minor BETWEEN 0 AND amount_minor", name="excess_within_amount"),
        CheckConstraint(in_check("status", RefundStatus), name="status_known"),
        CheckConstraint(f"({in_check('status', OPEN)}) = (settled_at IS NULL)", name="settled_when_over"),
        CheckConstraint("made_elsewhere OR excess_minor = 0", name="ours_fit"),
        CheckConstraint("version >= 0", name="version_not_negative"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    payment_id: Mapped[int] = mapped_column(BigId)
    amount_minor: Mapped[int] = mapped_column(BigId)
    # The part of a refund made elsewhere that exceeds the refundable money: the payment's amounts do not count it.
    unallocated_minor: Mapped[int] = mapped_column("excess_minor", BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(MAX_REASON_LENGTH))
    # The gateway's reason for declining it.
    decline_reason: Mapped[str | None] = mapped_column(String(MAX_REASON_LENGTH))
    gateway: Mapped[str] = mapped_column(String(32))
    # The gateway's id of the refund; null until it is known.
    reference: Mapped[str | None] = mapped_column(String(255))
    # Made outside this service, for example in the gateway's dashboard, and reported by a webhook.
    made_elsewhere: Mapped[bool]
    # Until then another process works on it, and resume leaves it alone.
    leased_until: Mapped[datetime] = mapped_column(UtcDateTime)
    # The payment's version when it was last leased for sending, so that the audit can tell whether that was before a
    # dispute. None: made elsewhere, or by a release that did not write it down.
    sent_at_version: Mapped[int | None] = mapped_column()
    version: Mapped[int] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Null if none was issued: it has not succeeded, or its payment's invoice was not paid. Without a foreign key, which
    # SQLite cannot add to a table; the audit checks it.
    credit_note_id: Mapped[int | None] = mapped_column(BigId)

    payment: Mapped[Payment] = relationship(back_populates="refunds", lazy="raise_on_sql")
    # It only fills in the id above: a new note has none before it is written (credit_note.py).
    credit_note: Mapped["CreditNote | None"] = relationship(
        primaryjoin="foreign(Refund.credit_note_id) == CreditNote.id", lazy="raise_on_sql"
    )

    __mapper_args__ = {  # a plain dict, as SQLAlchemy expects
        "version_id_col": version,
        "version_id_generator": lambda version: 0 if version is None else version + 1,
    }

    @classmethod
    def order(
        cls, payment: Payment, *, amount_minor: int, reason: str | None, leased_until: datetime, context: AuditContext
    ) -> "Refund":
        """A new refund that will be sent to the gateway; its money is reserved."""
        refund = cls._of(
            payment,
            amount_minor,
            context,
            reason=reason,
            leased_until=leased_until,
            sent_at_version=payment.version + 1,  # which reserving makes
        )
        payment.reserve_refund(amount_minor, "refund.requested", context.about_refund(refund, amount_minor))
        return refund

    @classmethod
    def record(
        cls, payment: Payment, *, amount_minor: int, reference: str | None, outcome: Approved, context: AuditContext
    ) -> "Refund":
        """A refund that was made elsewhere. If it exceeds the refundable money, the payment needs a review."""
        unallocated_minor = _unallocated(payment, amount_minor)
        refund = cls._of(
            payment,
            amount_minor,
            context,
            unallocated_minor=unallocated_minor,
            reference=reference,
            made_elsewhere=True,
        )
        context = context.about_refund(refund, amount_minor)
        if outcome.settled:
            refund.status, refund.settled_at = RefundStatus.SUCCEEDED, context.at
            payment.record_refund(amount_minor - unallocated_minor, context)
        else:
            payment.reserve_refund(amount_minor - unallocated_minor, "refund.recorded", context)
        if unallocated_minor:
            payment.flag_for_review("refund.exceeds_money", context, sticky=False)
        payment.review_refund_elsewhere(context)
        return refund

    @classmethod
    def record_failed(
        cls, payment: Payment, *, amount_minor: int, reference: str, outcome: Declined, context: AuditContext
    ) -> "Refund":
        """A refund that was made elsewhere and had failed before it was first reported: no money moves."""
        refund = cls._of(
            payment,
            amount_minor,
            context,
            status=RefundStatus.FAILED,
            settled_at=context.at,
            reference=reference,
            decline_reason=outcome.reason[:MAX_REASON_LENGTH],
            made_elsewhere=True,
        )
        payment.note("refund.failed", context.about_refund(refund, amount_minor))
        return refund

    @classmethod
    def _of(cls, payment: Payment, amount_minor: int, context: AuditContext, **more: object) -> "Refund":
        # Appended to the payment's list, because the payment's verbs iterate over it.
        refund = cls(
            **{
                "amount_minor": amount_minor,
                "unallocated_minor": 0,
                "currency": payment.currency,
                "status": RefundStatus.PENDING,
                "gateway": payment.gateway,
                "made_elsewhere": False,
                "leased_until": context.at,
                "created_at": context.at,
                **more,
            }
        )
        payment.refunds.append(refund)
        return refund

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def has_failed(self) -> bool:
        return self.status == RefundStatus.FAILED

    def was_requested(self, amount_minor: int | None, *, since: datetime) -> bool:
        """Whether it was requested through this service, of this amount, not before ``since``, and has not failed."""
        is_ours = not self.made_elsewhere and not self.has_failed
        return is_ours and self.amount_minor == amount_minor and self.created_at >= since

    @property
    def was_accepted(self) -> bool:
        """Whether the gateway counts it, or may count it, in its refunded total, even if it failed later."""
        return not self.has_failed or self.reference is not None

    @property
    def is_unattributed(self) -> bool:
        """Whether it stands for a total that the gateway reported without naming the refunds."""
        return self.made_elsewhere and self.reference is None and not self.has_failed

    @property
    def is_credited(self) -> bool:
        """Whether it has a credit note: money of a paid invoice went back, and the payment's amounts count all of it.

        An unattributed total has none until the gateway has named its refunds: until then its amount may change.
        """
        has_succeeded = self.status == RefundStatus.SUCCEEDED and not self.is_unattributed
        return has_succeeded and self.unallocated_minor == 0 and self.payment.invoices[0].paid_at is not None

    def split_off(self, amount_minor: int) -> "Refund":
        """Take a refund of this amount out of an unattributed total: the whole row, or a part as a row of its own.

        The payment's amounts stay the same.
        """
        if amount_minor == self.amount_minor:
            return self
        part = Refund(
            amount_minor=amount_minor,
            unallocated_minor=min(self.unallocated_minor, amount_minor),
            currency=self.currency,
            status=self.status,
            gateway=self.gateway,
            made_elsewhere=True,
            leased_until=self.leased_until,
            created_at=self.created_at,
            settled_at=self.settled_at,
        )
        self.amount_minor -= part.amount_minor
        self.unallocated_minor -= part.unallocated_minor
        self.payment.refunds.append(part)
        return part

    def increase(self, by_minor: int, context: AuditContext) -> None:
        """Raise the amount, because the refund is larger than reported so far."""
        unallocated_minor = _unallocated(self.payment, by_minor)
        self.amount_minor += by_minor
        self.unallocated_minor += unallocated_minor
        context = context.about_refund(self, self.amount_minor)
        self.payment.record_refund(by_minor - unallocated_minor, context)
        if unallocated_minor:
            self.payment.flag_for_review("refund.exceeds_money", context, sticky=False)
        self.payment.review_refund_elsewhere(context)

    @property
    def _counted_minor(self) -> int:
        return self.amount_minor - self.unallocated_minor

    def settle(self, outcome: Approved | Declined | OutcomeUnknown, context: AuditContext) -> None:
        """Apply the gateway's outcome. Outcomes may arrive repeatedly and in any order."""
        context = context.about_refund(self, self.amount_minor)
        match outcome:
            case Approved(reference=reference):
                self.reference = self.reference or reference
                if outcome.settled and self.is_open:
                    self._settle(RefundStatus.SUCCEEDED, context)
                    self.payment.settle_refund(self._counted_minor, context)
                elif self.is_open:
                    self._wait(RefundStatus.PENDING, context)
            case Declined(reason=reason) if not self.has_failed:
                # Without the reference, an older report that arrives later would look like an unknown refund.
                self.reference = self.reference or outcome.reference
                self._fail(reason, context)
            case OutcomeUnknown():
                if self.is_open:
                    # A missing response does not make a refund unknown that the gateway has accepted.
                    self._wait(RefundStatus.PENDING if self.reference else RefundStatus.UNKNOWN, context)

    def _wait(self, status: RefundStatus, context: AuditContext) -> None:
        """Keep it open and end the lease: resume or a webhook will settle it."""
        if self.status != status:
            self.payment.note(f"refund.{status}", context)
        self.status = status
        self.leased_until = context.at

    def _settle(self, status: RefundStatus, context: AuditContext) -> None:
        self.status = status
        self.settled_at = context.at

    def _fail(self, reason: str, context: AuditContext) -> None:
        """Mark it failed. If it had succeeded before, the money came back to the payment."""
        take_back = self.payment.release_refund if self.is_open else self.payment.reverse_refund
        counted_minor = self._counted_minor
        self._settle(RefundStatus.FAILED, context)
        self.unallocated_minor = 0
        self.decline_reason = reason[:MAX_REASON_LENGTH]
        take_back(counted_minor, context)

    def lease(self, until: datetime) -> None:
        """Lease it until then: to send it again, or only to look it up while the payment is disputed."""
        self.leased_until = until
        if not self.payment.is_disputed:
            self.sent_at_version = self.payment.version

    def count_excess(self, room_minor: int) -> int:
        """Lower the unallocated amount by at most ``room_minor``, and return by how much."""
        counted_minor = min(self.unallocated_minor, room_minor)
        self.unallocated_minor -= counted_minor
        return counted_minor


def _unallocated(payment: Payment, amount_minor: int) -> int:
    """How much of a refund made elsewhere exceeds the payment's remaining money, in minor units."""
    return amount_minor - min(amount_minor, payment.left_minor)


@event.listens_for(Refund, "after_insert")
def _log_new(_mapper: object, _connection: object, refund: Refund) -> None:
    _log_outcome(refund, "recorded" if refund.made_elsewhere else "requested")


@event.listens_for(Refund, "after_update")
def _log_change(_mapper: object, _connection: object, refund: Refund) -> None:
    if inspect(refund).attrs.status.history.has_changes():
        _log_outcome(refund, refund.status)


def _log_outcome(refund: Refund, outcome: str) -> None:
    log_event = f"Refund: {outcome}"

    def report() -> None:
        metrics.REFUNDS.labels(outcome).inc()
        log.info(log_event, refund_id=refund.id, payment_id=refund.payment_id, gateway=refund.gateway)

    after_commit(refund, report)

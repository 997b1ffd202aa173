"""Refunds: their table, and the verbs that change a refund together with its payment."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    CHAR,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    event,
    false,
    inspect,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime, in_check
from payments_app.db.transaction import after_commit
from payments_app.errors import (
    RefundAlreadySent,
    RefundNotRequested,
    RefundNotToBeSent,
    RefundRequestLapsed,
    SecondPersonNeeded,
)
from payments_app.gateways.base import Approved, Declined, OutcomeUnknown
from payments_app.gateways.references import MAX_NORMALIZED_LENGTH, normalized_reference
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment

if TYPE_CHECKING:
    from payments_app.payments.models.credit_note import CreditNote

log = get_logger(__name__)


class RefundStatus(StrEnum):
    """``requested``: waits for another admin's approval. ``pending``: about to be sent, or accepted by the gateway; or,
    by hand, to be sent by staff. ``unknown``: sent, and the gateway did not answer.
    """

    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


# Their money is reserved.
OPEN = (RefundStatus.REQUESTED, RefundStatus.PENDING, RefundStatus.UNKNOWN)
# The gateway may have these: resume looks them up, unless they are by hand.
SENT = (RefundStatus.PENDING, RefundStatus.UNKNOWN)

# A person has to act on these, so they are leased to people: resume, also of the release before, finds no lease that
# has ended.
LEASED_TO_PEOPLE: Final = datetime(9999, 1, 1, tzinfo=UTC)
_FOR_PEOPLE: Final = text(f"status = '{RefundStatus.REQUESTED}' OR by_hand AND status = '{RefundStatus.PENDING}'")

# For so long a refund may wait for approval.
REQUEST_TTL: Final = timedelta(days=7)

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
        # One transfer by hand returns one refund, in any spelling of its reference.
        Index(
            "uq_refunds_normalized_reference",
            "gateway",
            "payment_method",
            "normalized_reference",
            unique=True,
            postgresql_where=text("normalized_reference IS NOT NULL"),
            sqlite_where=text("normalized_reference IS NOT NULL"),
        ),
        # The few open refunds, which resume looks for among the many that are settled.
        Index(
            "ix_refunds_open",
            "leased_until",
            postgresql_where=text(in_check("status", SENT)),
            sqlite_where=text(in_check("status", SENT)),
        ),
        # The few on which people have to act.
        Index("ix_refunds_for_people", "status", "created_at", postgresql_where=_FOR_PEOPLE, sqlite_where=_FOR_PEOPLE),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("excess_minor BETWEEN 0 AND amount_minor", name="excess_within_amount"),
        CheckConstraint(in_check("status", RefundStatus), name="status_known"),
        CheckConstraint(f"({in_check('status', OPEN)}) = (settled_at IS NULL)", name="settled_when_over"),
        CheckConstraint("made_elsewhere OR excess_minor = 0", name="ours_fit"),
        CheckConstraint("version >= 0", name="version_not_negative"),
        CheckConstraint(
            "approved_by IS NULL OR (requested_by IS NOT NULL AND requested_by <> approved_by)", name="second_person"
        ),
        CheckConstraint(
            f"NOT by_hand OR status <> '{RefundStatus.SUCCEEDED}' OR transfer_reference IS NOT NULL",
            name="by_hand_has_reference",
        ),
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
    # Staff send the money. The default lets older releases, which settle such a refund at once, still insert.
    by_hand: Mapped[bool] = mapped_column(server_default=false())
    # Of refunds by hand: the payment's method, and the reference of the transfer as typed and in the common form of all
    # its spellings (gateways/references.py).
    payment_method: Mapped[str | None] = mapped_column(String(32))
    transfer_reference: Mapped[str | None] = mapped_column(String(255))
    normalized_reference: Mapped[str | None] = mapped_column(String(MAX_NORMALIZED_LENGTH))
    # The users who asked for it and who approved it. Null: made elsewhere, or by a release that did not write it down;
    # and needed no approval, or has none.
    requested_by: Mapped[int | None] = mapped_column(BigId)
    approved_by: Mapped[int | None] = mapped_column(BigId)
    approved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

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
        cls,
        payment: Payment,
        *,
        amount_minor: int,
        reason: str | None,
        requested_by: int,
        by_hand: bool,
        needs_approval: bool,
        leased_until: datetime,
        context: AuditContext,
    ) -> "Refund":
        """A new refund that will be sent to the gateway, or by hand; its money is reserved.

        ``requested_by``: the user's id. ``leased_until``: for the process that sends it to the gateway.
        """
        is_for_people = by_hand or needs_approval
        refund = cls._of(
            payment,
            amount_minor,
            context,
            status=RefundStatus.REQUESTED if needs_approval else RefundStatus.PENDING,
            reason=reason,
            requested_by=requested_by,
            by_hand=by_hand,
            payment_method=payment.payment_method if by_hand else None,
            leased_until=LEASED_TO_PEOPLE if is_for_people else leased_until,
            sent_at_version=None if is_for_people else payment.version + 1,  # which reserving makes
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
                "by_hand": False,
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
    def is_requested(self) -> bool:
        """Whether it waits for approval: its money is reserved, and nothing was sent."""
        return self.status == RefundStatus.REQUESTED

    @property
    def is_to_be_sent(self) -> bool:
        """Whether staff have to send the money."""
        return self.by_hand and self.status == RefundStatus.PENDING

    @property
    def is_at_gateway(self) -> bool:
        """Whether the gateway may have it, so that it can be looked up there."""
        return self.status in SENT and not self.by_hand

    @property
    def was_never_sent(self) -> bool:
        """Whether it failed before anything was sent: rejected, lapsed, or by hand and given up."""
        return self.has_failed and self.requested_by is not None and self.sent_at_version is None

    @property
    def method(self) -> str:
        """The payment's method."""
        return self.payment.payment_method

    @property
    def shown_reference(self) -> str | None:
        """The transfer by which staff have sent it, or the gateway's id of it."""
        return self.transfer_reference or self.reference

    @property
    def first_sent_at(self) -> datetime:
        """Since when the gateway may know its key."""
        return self.approved_at or self.created_at

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
        return not (self.has_failed or self.is_requested) or self.reference is not None

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

    @property
    def lacks_note(self) -> bool:
        """Whether it has succeeded without a credit note: it has earned none, or an older release has settled it."""
        return self.status == RefundStatus.SUCCEEDED and self.credit_note_id is None

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
            by_hand=False,
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

    def require_requested(self, *, decided_by: int) -> None:
        """Check that this user may approve or reject it.

        Raises:
            SecondPersonNeeded: the user requested it (403).
            RefundNotRequested: it does not wait for approval (409).
        """
        if decided_by == self.requested_by:
            raise SecondPersonNeeded
        if not self.is_requested:
            raise RefundNotRequested(refund_status=self.status)

    def has_lapsed(self, now: datetime) -> bool:
        """Whether it has waited too long for approval."""
        return self.is_requested and self.created_at + REQUEST_TTL <= now

    def approve(self, *, approved_by: int, leased_until: datetime, context: AuditContext) -> None:
        """Another admin agrees: from now on it is sent, as one that needed no approval.

        Raises:
            SecondPersonNeeded: the same user requested it (403).
            RefundNotRequested: it does not wait for approval (409).
            RefundRequestLapsed: it has waited too long (409).
        """
        self.require_requested(decided_by=approved_by)
        if self.has_lapsed(context.at):
            raise RefundRequestLapsed
        self.approved_by, self.approved_at = approved_by, context.at
        self.status = RefundStatus.PENDING
        if not self.by_hand:
            self.leased_until = leased_until
            self.sent_at_version = self.payment.version + 1  # which approving makes
        self.payment.approve_refund(context.about_refund(self, self.amount_minor))

    def reject(self, reason: str, context: AuditContext) -> None:
        """It is not sent: rejected, or lapsed. ``require_requested`` was called before."""
        self._fail(reason, context.about_refund(self, self.amount_minor))

    def settle_by_hand(self, reference: str, context: AuditContext) -> None:
        """Staff have sent the money; ``reference`` is the transfer's.

        Raises:
            RefundNotToBeSent: it is not by hand, or waits for approval, or has failed (409).
            RefundAlreadySent: the money was sent by another transfer (409).
        """
        if self.by_hand and self.transfer_reference is not None:
            raise RefundAlreadySent(reference=self.transfer_reference)
        if not self.is_to_be_sent:
            raise RefundNotToBeSent(refund_status=self.status)
        context = context.about_refund(self, self.amount_minor)
        self.transfer_reference = reference
        self.normalized_reference = normalized_reference(self.gateway, reference)
        self.sent_at_version = self.payment.version + 1  # which settling makes
        self._settle(RefundStatus.SUCCEEDED, context)
        self.payment.settle_refund(self._counted_minor, context)

    def was_sent_by(self, reference: str) -> bool:
        """Whether staff have sent the money by this transfer, in any spelling of its reference."""
        if self.transfer_reference is None or self.transfer_reference == reference:
            return self.transfer_reference == reference
        normalized = normalized_reference(self.gateway, reference)
        return normalized is not None and normalized == self.normalized_reference

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

"""The table of consultations."""

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CHAR, CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime
from payments_app.errors import ConsultationClosed, ReferenceFixed

if TYPE_CHECKING:
    from payments_app.payments.models.payment import Payment


class Consultation(Base):
    """One medical consultation of one patient. The booking system assigns its id."""

    __tablename__ = "consultations"
    __table_args__ = (
        ForeignKeyConstraint(["patient_id"], ["users.id"], name="fk_consultations_patient"),
        # Referenced by payments: the database itself refuses a payment by another user, and a change of patient if the
        # consultation has payments.
        UniqueConstraint("id", "patient_id", name="uq_consultations_id_patient"),
        Index("ix_consultations_patient", "patient_id", "id"),
        Index(
            "uq_consultations_reference",
            "reference",
            unique=True,
            # With a predicate it is no key of the table: to set one does not wait for payments that are being made.
            postgresql_where=text("reference IS NOT NULL"),
            sqlite_where=text("reference IS NOT NULL"),
        ),
        # For the search of the front desk, by the beginning of a reference.
        Index(
            "ix_consultations_reference_search",
            "reference",
            postgresql_ops={"reference": "text_pattern_ops"},
            postgresql_where=text("reference IS NOT NULL"),
            sqlite_where=text("reference IS NOT NULL"),
        ),
        Index(
            "ix_consultations_registered_by",
            "registered_by",
            "id",
            postgresql_where=text("registered_by IS NOT NULL"),
            sqlite_where=text("registered_by IS NOT NULL"),
        ),
        CheckConstraint("id > 0", name="id_positive"),
        CheckConstraint("fee_minor > 0", name="fee_positive"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    patient_id: Mapped[int] = mapped_column(BigId)
    # None: the patient may pay any amount.
    fee_minor: Mapped[int | None] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    # Shown to the patient.
    description: Mapped[str | None] = mapped_column(String(200))
    starts_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The booking system's own name for it, such as BK-77. Once set, it stays.
    reference: Mapped[str | None] = mapped_column(String(64))
    # From then on no payment can be created for it.
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The id of the user who registered it first; users are never deleted. None: a release that did not keep that.
    registered_by: Mapped[int | None] = mapped_column(BigId)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def status(self) -> str:
        """``open``; or ``closed``: it takes no new payment, and no longer changes."""
        return "open" if self.closed_at is None else "closed"

    def require_open(self) -> None:
        """Raises:
        ConsultationClosed: nobody can pay it any more (409).
        """
        if self.closed_at is not None:
            raise ConsultationClosed

    def close(self, at: datetime) -> None:
        """From now on nobody can pay it, and nothing of it changes."""
        self.require_open()
        self.closed_at = self.updated_at = at

    def erase(self, at: datetime) -> None:
        """Its patient's data are erased: it has no description any more, and nobody can pay it."""
        if self.closed_at is None:
            self.close(at)
        if self.description is not None:
            self.description, self.updated_at = None, at

    def name(self, reference: str) -> None:
        """Give it the booking system's own name, once.

        Raises:
            ReferenceFixed: it has another one (409).
        """
        if self.reference not in (None, reference):
            raise ReferenceFixed(reference=self.reference)
        self.reference = reference

    # Named by string: payments know consultations, not the other way round. At most one row, by the index of M1.
    active_payment: Mapped["Payment | None"] = relationship(
        primaryjoin="and_(Payment.consultation_id == Consultation.id, Payment.is_active)",
        foreign_keys="Payment.consultation_id",
        uselist=False,
        viewonly=True,
    )

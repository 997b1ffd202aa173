"""The table of consultations."""

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CHAR, CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from payments_app.db.base import Base, BigId, UtcDateTime

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
        CheckConstraint("id > 0", name="id_positive"),
        CheckConstraint("fee_minor > 0", name="fee_positive"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    patient_id: Mapped[int] = mapped_column(BigId)
    # None: the patient may pay any amount.
    fee_minor: Mapped[int | None] = mapped_column(BigId)
    currency: Mapped[str] = mapped_column(CHAR(3))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    # Named by string: payments import consultations, not the other way round. At most one row, by the index of M1.
    active_payment: Mapped["Payment | None"] = relationship(
        primaryjoin="and_(Payment.consultation_id == Consultation.id, Payment.is_active)",
        foreign_keys="Payment.consultation_id",
        uselist=False,
        viewonly=True,
    )

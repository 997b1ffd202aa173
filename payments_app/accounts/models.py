"""People who may log in."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.database import Base, BigId, UtcDateTime, one_of


class Role(StrEnum):
    """What a user may do: pay own consultations; everything staff may; register consultations only."""

    PATIENT = "patient"
    ADMIN = "admin"
    BOOKING = "booking"


class User(Base):
    """A patient, a member of staff, or the booking system that registers consultations."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email", name="uq_users_email"),
        CheckConstraint("email = lower(email)", name="email_lower_case"),
        CheckConstraint(one_of("role", Role), name="role_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    email: Mapped[str] = mapped_column(String(254))  # the longest address that SMTP can carry (RFC 3696, erratum 1690)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(255))
    # Raised to end every token given out so far.
    token_version: Mapped[int] = mapped_column(default=0)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

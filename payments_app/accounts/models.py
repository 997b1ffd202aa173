"""People who may log in."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.accounts import emails, names
from payments_app.db.base import Base, BigId, UtcDateTime, in_check


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
        CheckConstraint(in_check("role", Role), name="role_known"),
        Index(
            "uq_users_normalized_email",
            "normalized_email",
            unique=True,
            # With a predicate it is no key: who fills it in does not lock out those who insert the user's payments.
            postgresql_where=text("normalized_email IS NOT NULL"),
            sqlite_where=text("normalized_email IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    # In the spelling in which the user was added; of those who are added now, normalized.
    email: Mapped[str] = mapped_column(String(emails.MAX_LENGTH))
    # None: another user has the address in another spelling, or the release before, which has no such column, added it.
    normalized_email: Mapped[str | None] = mapped_column(String(emails.MAX_LENGTH))
    name: Mapped[str] = mapped_column(String(names.MAX_LENGTH))
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(255))
    # Raised to end every token given out so far.
    token_version: Mapped[int] = mapped_column(default=0)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

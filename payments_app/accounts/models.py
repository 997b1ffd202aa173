"""The users table."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.accounts import emails, names
from payments_app.db.base import Base, BigId, UtcDateTime, in_check


class Role(StrEnum):
    """``patient``: pays own consultations. ``admin``: staff, may do all. ``booking``: registers consultations."""

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
            # A partial index is not a key for row locks: an UPDATE of this column does not block inserts of payments,
            # which lock the user's row for their foreign key.
            postgresql_where=text("normalized_email IS NOT NULL"),
            sqlite_where=text("normalized_email IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    # Normalized; rows from before the normalization keep the spelling in which the user was added.
    email: Mapped[str] = mapped_column(String(emails.MAX_LENGTH))
    # None: another user has the same address in another spelling, or the previous release, which does not know this
    # column, added the user.
    normalized_email: Mapped[str | None] = mapped_column(String(emails.MAX_LENGTH))
    name: Mapped[str] = mapped_column(String(names.MAX_LENGTH))
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(255))
    # Increased to invalidate all tokens issued so far.
    token_version: Mapped[int] = mapped_column(default=0)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

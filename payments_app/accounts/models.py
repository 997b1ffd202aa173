"""The tables of users, of payment links and of API keys."""

import secrets
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CHAR, CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.accounts import emails, names
from payments_app.accounts.passwords import NO_PASSWORD
from payments_app.db.base import Base, BigId, UtcDateTime, in_check


class Role(StrEnum):
    """Permissions of a caller.

    ``patient``: pays own consultations. ``admin``: everything that staff may do. ``booking``: registers consultations
    and reads those. ``payer``: somebody with a payment link, who pays that link's consultation; no user has this role.
    """

    PATIENT = "patient"
    ADMIN = "admin"
    BOOKING = "booking"
    PAYER = "payer"


# In place of what was erased. The domain is reserved (RFC 2606): nobody has such an address.
ERASED_DOMAIN = "erased.invalid"
ERASED_NAME = "Erased patient"

# Their users are compared with the database at every request, because they may see other people's rows.
STAFF = frozenset([Role.ADMIN, Role.BOOKING])
USER_ROLES = (Role.PATIENT, Role.ADMIN, Role.BOOKING)


class Scope(StrEnum):
    """What an API key may be used for. It never allows more than its user's role does."""

    CONSULTATIONS_READ = "consultations:read"
    CONSULTATIONS_WRITE = "consultations:write"
    LINKS_WRITE = "links:write"
    PAYMENTS_READ = "payments:read"
    PAYMENTS_CONFIRM = "payments:confirm"
    REFUNDS_WRITE = "refunds:write"
    EVENTS_READ = "events:read"
    WEBHOOKS_WRITE = "webhooks:write"


class User(Base):
    """A patient, a member of staff, or the booking system that registers consultations."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email", name="uq_users_email"),
        CheckConstraint("email = lower(email)", name="email_lower_case"),
        CheckConstraint(in_check("role", USER_ROLES), name="role_known"),
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
    # The language of the pages and messages that the user gets, such as en. None: not known.
    language: Mapped[str | None] = mapped_column(String(8))
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Since then name and e-mail address are a pseudonym, and the user stays disabled.
    erased_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    def disable(self, at: datetime) -> None:
        """End all logins; there are no new ones. Again, it ends tokens of a moment ago."""
        self.disabled_at = self.disabled_at or at
        self.token_version += 1

    def erase(self, at: datetime) -> None:
        """Replace name and e-mail address by a pseudonym, and end all logins for good. Again, it changes nothing."""
        if self.erased_at is not None:
            return
        self.disable(at)
        # The random part, so that nobody can take the address first, which would prevent the erasure.
        self.email = self.normalized_email = f"erased-{self.id}-{secrets.token_hex(4)}@{ERASED_DOMAIN}"
        self.name, self.password_hash, self.language = ERASED_NAME, NO_PASSWORD, None
        self.erased_at = at


class PaymentLink(Base):
    """A link to the page that pays one consultation. Of its token only the SHA-256 is kept, as 64 hex digits."""

    __tablename__ = "payment_links"
    __table_args__ = (
        ForeignKeyConstraint(["consultation_id"], ["consultations.id"], name="fk_payment_links_consultation"),
        ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_payment_links_created_by"),
        UniqueConstraint("token_hash", name="uq_payment_links_token_hash"),
        Index("ix_payment_links_consultation", "consultation_id", "id"),
        CheckConstraint("expires_at > created_at", name="lives"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    consultation_id: Mapped[int] = mapped_column(BigId)
    token_hash: Mapped[str] = mapped_column(CHAR(64))
    # Where the page leads the patient on to.
    return_url: Mapped[str | None] = mapped_column(String(2048))
    created_by: Mapped[int] = mapped_column(BigId)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """A key by which a program acts as a user. Of the key only the SHA-256 is kept, as 64 hex digits."""

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user"),
        UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        Index("ix_api_keys_user", "user_id", "id"),
        CheckConstraint("expires_at > created_at", name="lives"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(BigId)
    name: Mapped[str] = mapped_column(String(64))
    # The beginning of the key, which lists show.
    prefix: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(CHAR(64))
    # Names of ``Scope``, with blanks between them.
    scopes: Mapped[str] = mapped_column(String(255))
    # The actor that made it, such as command:maria.
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The hour of its last use.
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

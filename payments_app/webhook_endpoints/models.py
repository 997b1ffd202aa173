"""The tables of webhook endpoints, and of the deliveries of events to them."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from payments_app.db.base import Base, BigId, UtcDateTime, in_check

# Seconds before each attempt, counted from the one before it. A delivery that fails after the last one is given up:
# two days and seven hours after the first.
ATTEMPTS_AFTER_SECONDS = (0, 5, 30, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 86_400)

# An endpoint that takes nothing for so long is disabled.
DISABLED_AFTER = timedelta(days=5)

# A failure so long after the last one begins a new series. Attempts are a day apart at most, so it is another event's;
# nor does a clock that jumps make a failure of this moment one of five days.
SERIES_ENDS_AFTER = timedelta(days=2)

# In place of a list of types: all of them, also those that a later release adds.
ALL_TYPES = "*"

MAX_DESCRIPTION_LENGTH = 200


class DisabledReason(StrEnum):
    """Why an endpoint is disabled: by its owner, by its answer 410, or because it took nothing for five days."""

    BY_HAND = "by_hand"
    GONE = "gone"
    FAILING = "failing"


class DeliveryStatus(StrEnum):
    """``pending`` until the endpoint has taken the event, or until it is given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryError(StrEnum):
    """Why the last attempt failed, or why there will be none."""

    NOT_HTTPS = "not_https"
    HOST_NOT_FOUND = "host_not_found"
    ADDRESS_NOT_PUBLIC = "address_not_public"
    NO_CONNECTION = "no_connection"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    NOT_HTTP = "not_http"
    REFUSED = "refused"
    REDIRECTED = "redirected"
    GONE = "gone"
    ENDPOINT_DISABLED = "endpoint_disabled"


class WebhookEndpoint(Base):
    """A URL that hears of events. It is kept when it is deleted, so that its number and its counts are."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint(in_check("disabled_reason", DisabledReason), name="disabled_reason_known"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    url: Mapped[str] = mapped_column(String(2048))
    # Names of events with blanks between them, or ``ALL_TYPES``.
    types: Mapped[str] = mapped_column(String(2048))
    description: Mapped[str | None] = mapped_column(String(MAX_DESCRIPTION_LENGTH))
    # It signs, so the database has it as it is.
    secret: Mapped[str] = mapped_column(String(64))
    # It signs too, until its end, so that receivers can be given the new one one after the other.
    previous_secret: Mapped[str | None] = mapped_column(String(64))
    previous_secret_ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Up to which position of the feed its deliveries have been made.
    position: Mapped[int] = mapped_column(BigId)
    attempts_delivered: Mapped[int] = mapped_column(BigId, default=0)
    attempts_failed: Mapped[int] = mapped_column(BigId, default=0)
    last_delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Since when every attempt has failed. Null if the last one did not.
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_reason: Mapped[str | None] = mapped_column(String(16))
    # The actor that made it, such as admin:2.
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def is_enabled(self) -> bool:
        return self.disabled_at is None

    def secrets_at(self, now: datetime) -> list[str]:
        """The secrets that sign at this time, the newest first."""
        is_overlapping = self.previous_secret_ends_at is not None and now < self.previous_secret_ends_at
        return [self.secret, *([self.previous_secret] if is_overlapping and self.previous_secret else [])]

    def rotate(self, secret: str, *, previous_ends_at: datetime) -> None:
        self.previous_secret, self.previous_secret_ends_at = self.secret, previous_ends_at
        self.secret = secret

    def disable(self, reason: DisabledReason, now: datetime) -> None:
        self.disabled_at, self.disabled_reason = now, reason.value

    def enable(self, *, position: int) -> None:
        """Hear again, of what gets a position after this one."""
        self.disabled_at = self.disabled_reason = self.failing_since = None
        self.position = position

    def delete(self, now: datetime) -> None:
        """The row stays; its secrets do not."""
        self.deleted_at = now
        self.secret, self.previous_secret = "", None

    def note_delivered(self, now: datetime) -> None:
        self.attempts_delivered += 1
        self.last_delivered_at, self.failing_since = now, None

    def note_failed(self, now: datetime, *, is_gone: bool) -> None:
        """Count a failed attempt; disable the endpoint if it says so, or has failed for too long."""
        self.attempts_failed += 1
        last, since = self.last_failed_at, self.failing_since
        # A series that begins in the future: the clock has jumped back.
        if since is None or since > now or last is None or last < now - SERIES_ENDS_AFTER:
            self.failing_since = since = now
        self.last_failed_at = now
        if is_gone:
            self.disable(DisabledReason.GONE, now)
        elif since <= now - DISABLED_AFTER:
            self.disable(DisabledReason.FAILING, now)


class WebhookDelivery(Base):
    """One event for one endpoint; without an event it is a ping. It is changed under the lock of its endpoint."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name="fk_webhook_deliveries_endpoint"),
        ForeignKeyConstraint(["event_id"], ["payment_events.id"], name="fk_webhook_deliveries_event"),
        UniqueConstraint("event_id", "endpoint_id", name="uq_webhook_deliveries_event"),
        CheckConstraint(in_check("status", DeliveryStatus), name="status_known"),
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_a_time"),
        Index("ix_webhook_deliveries_endpoint", "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_not_tried",
            "endpoint_id",
            "position",
            "id",
            postgresql_where=text("status = 'pending' AND attempts = 0"),
            sqlite_where=text("status = 'pending' AND attempts = 0"),
        ),
        Index(
            "ix_webhook_deliveries_tried",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending' AND attempts > 0"),
            sqlite_where=text("status = 'pending' AND attempts > 0"),
        ),
        Index(
            "ix_webhook_deliveries_delivered",
            "delivered_at",
            postgresql_where=text("status = 'delivered'"),
            sqlite_where=text("status = 'delivered'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    endpoint_id: Mapped[int] = mapped_column(BigId)
    event_id: Mapped[int | None] = mapped_column(BigId)
    # The event's; 0 for a ping, which goes before all events.
    position: Mapped[int] = mapped_column(BigId)
    status: Mapped[str] = mapped_column(String(16), default=DeliveryStatus.PENDING.value)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # Until then the sender that holds this lease, and nobody else, sends it.
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease: Mapped[str | None] = mapped_column(String(32))
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_status_code: Mapped[int | None] = mapped_column()
    last_error: Mapped[str | None] = mapped_column(String(32))
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    def webhook_id(self, event_created_at: datetime | None) -> str:
        """The name under which receivers know it, equal in every attempt. With the event's time, because after a
        restore of the database another event may get this id.
        """
        if self.event_id is None or event_created_at is None:
            return f"ping_{self.id}_{_microseconds(self.created_at)}"
        return f"evt_{self.event_id}_{_microseconds(event_created_at)}"

    def release(self) -> None:
        self.lease = self.leased_until = None

    def succeed(self, now: datetime, *, status_code: int | None) -> None:
        self._note_attempt(now, status_code, None)
        self.status, self.delivered_at = DeliveryStatus.DELIVERED.value, now

    def fail(self, now: datetime, *, status_code: int | None, error: DeliveryError) -> None:
        """Count a failed attempt: another follows later, or none. None follows a 410, which disables the endpoint."""
        self._note_attempt(now, status_code, error)
        if self.attempts < len(ATTEMPTS_AFTER_SECONDS) and error != DeliveryError.GONE:
            self.next_attempt_at = now + timedelta(seconds=ATTEMPTS_AFTER_SECONDS[self.attempts])
        else:
            self.status = DeliveryStatus.FAILED.value

    def repeat(self, now: datetime) -> None:
        """Let it be sent again, at once: one attempt more, if all were made."""
        self.status, self.delivered_at, self.next_attempt_at = DeliveryStatus.PENDING.value, None, now

    def _note_attempt(self, now: datetime, status_code: int | None, error: DeliveryError | None) -> None:
        self.attempts += 1
        self.last_attempt_at, self.last_status_code = now, status_code
        self.last_error = None if error is None else error.value
        self.release()


def _microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

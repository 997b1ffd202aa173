"""The only source of the present time. All times in this project are UTC and timezone-aware."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present time in UTC, to the microsecond, as both databases store it."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """ISO 8601 in UTC, always with microseconds, such as ``2026-01-31T09:30:00.000000Z``.

    The width is fixed, so that clients can compare the texts.
    """
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"

"""The one place that knows what time it is. Every time in this project is UTC and aware of it."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment in UTC, to the microsecond (what both databases keep)."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """ISO 8601 in UTC, always with microseconds, such as ``2026-01-31T09:30:00.000000Z``.

    A fixed width lets clients compare the texts themselves.
    """
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"

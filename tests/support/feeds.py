"""Readers of the feed in tests."""

from typing import Any

from tests.support.people import Person

Event = dict[str, Any]


def read_page(reader: Person, cursor: str | None = None, **query: Any) -> tuple[list[Event], str, bool]:
    """A page's events, the next cursor, and whether more can be read at once."""
    query = {**({} if cursor is None else {"after": cursor}), **query}
    answer = reader.get("/events", query_string=query)
    assert answer.status_code == 200, answer.text
    meta = answer.json["meta"]
    return answer.json["data"], meta["next_cursor"], meta["has_more"]


def read_all(reader: Person, cursor: str | None = None, **query: Any) -> list[Event]:
    """All events from the cursor to the present end of the feed."""
    events, has_more = [], True
    while has_more:
        page, cursor, has_more = read_page(reader, cursor, **query)
        events += page
    return events

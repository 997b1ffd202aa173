"""Reads the feed, after giving positions to what was committed meanwhile, and waits for news if asked to."""

import threading
import time

from flask import Flask, current_app

from payments_app.db.deadline import is_stopping
from payments_app.events import positions, repository
from payments_app.events.repository import FeedFilter, FeedPage

# Requests of one process that may wait for news at the same time: a quarter of its threads (gunicorn.conf.py).
WAITING_AT_ONCE = 2

# Seconds between two looks for news: soon after the request, so that a reader at the end of the feed hears within a
# tenth of a second, then less often, so that one that waits long costs the database little.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


def init_app(app: Flask) -> None:
    app.extensions["feed waits"] = threading.BoundedSemaphore(WAITING_AT_ONCE)


def read(shown: FeedFilter, *, wait_seconds: int) -> FeedPage:
    """One page of the feed. If there is nothing to show, look again for up to ``wait_seconds``.

    No transaction is open meanwhile, and a worker that stops waits no longer. If other requests of this process wait
    already, the page is returned at once, however empty.

    Raises:
        CursorLost: another event, or none, has the position after which the page begins (410).
    """
    page = _read_once(shown)
    waits: threading.BoundedSemaphore = current_app.extensions["feed waits"]
    if not _is_worth_waiting(page, shown) or not wait_seconds or not waits.acquire(blocking=False):
        return page
    try:
        end, pause = time.monotonic() + wait_seconds, _FIRST_PAUSE
        while (left := end - time.monotonic()) > 0 and not is_stopping():
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
            if positions.is_any_waiting() or repository.has_news(page.end):
                behind = _behind(shown, page)
                page = _read_once(behind)
                if not _is_worth_waiting(page, behind):
                    break
        return page
    finally:
        waits.release()


def _is_worth_waiting(page: FeedPage, shown: FeedFilter) -> bool:
    """Whether the page is empty, and the next one would be too: the filter has seen all, or another process is giving
    positions at this moment.
    """
    return not page.events and not (page.has_more and page.end != shown.after)


def _behind(shown: FeedFilter, page: FeedPage) -> FeedFilter:
    """The same filter, from where the page has looked already."""
    return FeedFilter(after=page.end, limit=shown.limit, types=shown.types, registered_by=shown.registered_by)


def _read_once(shown: FeedFilter) -> FeedPage:
    """A page that is full as it is costs no write: a reader who has far to go gives no positions."""
    page = repository.read_page(shown)
    if page.has_more or not positions.is_any_waiting():
        return page
    more_waits = positions.give_batch()
    page = repository.read_page(shown)
    return FeedPage(page.events, page.end, page.has_more or more_waits)

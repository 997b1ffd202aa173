"""Sends committed events to webhook endpoints, and goes on doing so.

Each endpoint has two lanes: first attempts, in the order of position, and attempts after a failure, which hold back no
first ones. A lane is sent one after the other by one thread, so an endpoint is never called by more than two at once.
Endpoints that take nothing have threads of their own: however many of them hang, the others are served.

A delivery is leased in one transaction and settled in another; none is open while an endpoint is called. A sender that
is killed leaves leases behind, which end by themselves.
"""

import json
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from payments_app import clock
from payments_app.errors import AppError
from payments_app.events import positions
from payments_app.events.repository import FeedEvent, find_events
from payments_app.events.schemas import render_event
from payments_app.observability.logging import get_logger
from payments_app.webhook_endpoints import attempt, deliveries
from payments_app.webhook_endpoints.attempt import Outcome, Rules
from payments_app.webhook_endpoints.deliveries import LEASE, ClockWatch, Lane, Leased
from payments_app.webhook_endpoints.signing import headers_of

log = get_logger(__name__)

# Threads for endpoints that take what they are sent, and for those that do not. If more endpoints than this begin to
# hang at the same moment, others wait for one attempt; from then on the second kind of threads has those that hang.
THREADS = 64

# Deliveries that a thread leases at a time. Of an endpoint that takes nothing one, which leaves room for another
# endpoint after each attempt.
AT_ONCE, AT_ONCE_FAILING = 20, 1

# Seconds between two looks for something new, and between two deletions of what is old.
PAUSE_SECONDS = 0.5
PRUNE_EVERY_SECONDS = 60

# Seconds to wait before the database, which did not answer, is asked again.
PAUSE_AFTER_ERROR_SECONDS = 2.0


class Sender:
    """One process that sends. ``counts``: attempts since its start, by ``delivered`` and ``failed``."""

    def __init__(self, app: Flask) -> None:
        settings = app.config["SETTINGS"]
        self._app = app
        self._rules = Rules(https_only=settings.is_production, allow_private=settings.webhook_allow_private)
        self._stop, self._wake = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._watch: ClockWatch | None = None
        self._busy: dict[tuple[int, bool], Future[bool]] = {}
        self._prune_at = 0.0
        self.counts: Counter[str] = Counter()

    def stop(self) -> None:
        """Begin no other attempt, and return when those that have begun are settled."""
        self._stop.set()
        self._wake.set()

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def run_once(self) -> None:
        """Send all that is due, first attempts included, once."""
        due_at = deliveries.now()
        while positions.give_positions() and not self.is_stopping:
            pass
        while self._fan_out() and not self.is_stopping:
            pass
        with _Threads() as threads:
            for lane in deliveries.find_lanes(self._watch, due_at=due_at):
                self._begin(threads, lane, due_at)
        for work in [*self._busy.values()]:
            work.result()
        while deliveries.prune() and not self.is_stopping:
            pass

    def run(self) -> None:
        """Send until ``stop`` is called. A database that goes away is asked again and again.

        Raises:
            AppError: it was not there at the beginning, or is not usable.
        """
        deliveries.find_behind()
        self._watch = ClockWatch()
        with _Threads() as threads:
            while not self.is_stopping:
                self._wake.clear()
                try:
                    has_more = self._look(threads)
                except (AppError, SQLAlchemyError) as error:
                    log.warning("Webhook sender: pauses", error=type(error).__name__)
                    self._stop.wait(PAUSE_AFTER_ERROR_SECONDS)
                    continue
                if not has_more:
                    self._wake.wait(PAUSE_SECONDS)

    def _look(self, threads: "_Threads") -> bool:
        """Look for something to do, and have it done; whether there is more to look for at once."""
        has_more = positions.give_positions()
        has_more |= self._fan_out()
        for lane in deliveries.find_lanes(self._watch, due_at=None):
            self._begin(threads, lane, None)
        if time.monotonic() >= self._prune_at and deliveries.prune() == 0:
            self._prune_at = time.monotonic() + PRUNE_EVERY_SECONDS
        return has_more

    def _fan_out(self) -> bool:
        # One transaction of each endpoint at a time: one that is far behind keeps no other waiting.
        has_more = [deliveries.fan_out(endpoint_id) for endpoint_id in deliveries.find_behind()]
        return any(has_more)

    def _begin(self, threads: "_Threads", lane: Lane, due_at: datetime | None) -> None:
        """Have a lane sent, unless a thread of this process does so already."""
        key = (lane.endpoint_id, lane.is_first)
        if key in self._busy and not self._busy[key].done():
            return
        work = threads.of(lane).submit(self._serve, lane, due_at)
        self._busy[key] = work
        work.add_done_callback(self._wake_if_more)

    def _wake_if_more(self, work: Future[bool]) -> None:
        if work.exception() is None and work.result():
            self._wake.set()

    def _serve(self, lane: Lane, due_at: datetime | None) -> bool:
        """Send some deliveries of a lane; whether there may be more, for which another lane may have the thread first.

        `--once` sends to the lane's end, or to an error, which ends the command.
        """
        with self._app.app_context():
            if due_at is not None:
                while not self.is_stopping and self._send_some(lane, due_at):
                    pass
                return False
            try:
                return not self.is_stopping and self._send_some(lane, None)
            except Exception as error:
                is_expected = isinstance(error, AppError | SQLAlchemyError)
                log.warning(
                    "Webhook sender: pauses",
                    endpoint_id=lane.endpoint_id,
                    error=type(error).__name__,
                    exc_info=not is_expected,
                )
                self._stop.wait(PAUSE_AFTER_ERROR_SECONDS)
                return True

    def _send_some(self, lane: Lane, due_at: datetime | None) -> bool:
        """Send the next deliveries of a lane; whether there were any."""
        until = time.monotonic() + LEASE.total_seconds() / 2 - attempt.ATTEMPT_SECONDS
        at_most = AT_ONCE_FAILING if lane.is_failing else AT_ONCE
        leased = deliveries.lease(lane, self._watch, at_most=at_most, due_at=due_at)
        events = find_events([each.event_id for each in leased if each.event_id is not None])
        for number, each in enumerate(leased):
            if self.is_stopping or time.monotonic() > until or not self._send(each, events):
                deliveries.release(leased[number:])
                break
        return bool(leased)

    def _send(self, leased: Leased, events: dict[int, FeedEvent]) -> bool:
        """Send a delivery and write down what came of it; whether the endpoint took it."""
        target = deliveries.find_target(leased)
        if target is None:  # disabled, deleted or taken over meanwhile
            return False
        body = _body_of(leased, events)
        headers = headers_of(leased.webhook_id, int(target.signed_at.timestamp()), body, secrets=target.secrets)
        outcome = attempt.post(target.url, body, headers, self._rules, seconds=attempt.ATTEMPT_SECONDS)
        self._settle(leased, outcome)
        return outcome.error is None

    def _settle(self, leased: Leased, outcome: Outcome) -> None:
        """An outcome that is not written down is sent again: the database is asked until it has it, or we stop."""
        with self._lock:
            self.counts["delivered" if outcome.error is None else "failed"] += 1
        while True:
            try:
                if outcome.error is None:
                    deliveries.settle_success(leased, status_code=outcome.status_code)
                else:
                    deliveries.settle_failure(leased, status_code=outcome.status_code, error=outcome.error)
                    log.info("Webhook delivery: not taken", delivery_id=leased.id, error=outcome.error.value)
            except AppError:
                if self._stop.wait(PAUSE_AFTER_ERROR_SECONDS):
                    raise
            else:
                return


class _Threads:
    """Two kinds of threads: see ``THREADS``."""

    def __init__(self) -> None:
        self._serving = ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks")
        self._failing = ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks-failing")

    def of(self, lane: Lane) -> ThreadPoolExecutor:
        return self._failing if lane.is_failing else self._serving

    def __enter__(self) -> "_Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.shutdown(wait=True)
        self._failing.shutdown(wait=True)


def _body_of(leased: Leased, events: dict[int, FeedEvent]) -> bytes:
    """The same bytes in every attempt: of the event's own row, or of the ping's."""
    if leased.event_id is None:
        shown = {
            "type": "ping",
            "created_at": clock.to_text(leased.created_at),
            "data": {"webhook_endpoint_id": leased.endpoint_id},
        }
    else:
        shown = render_event(events[leased.event_id])
    return json.dumps(shown, separators=(",", ":")).encode()

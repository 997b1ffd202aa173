"""The story of a refund: set aside, sent, settled; two short transactions with the network between them.

Wherever it is cut off, the row says how far it came at the least, and ``resume`` tells the rest: it looks up first, and
sends again only under the same gateway key, and only while the gateway is sure to remember that key. A gateway that
remembers no keys is never sent a refund again unless staff say so.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from payments_app import clock
from payments_app.errors import Unavailable, VersionConflict
from payments_app.gateways.base import Gateway, OutcomeUnknown
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import record_duplicate, under_lock
from payments_app.locking import locks
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.refund import Refund
from payments_app.payments.repository import ChangeCommand
from payments_app.refunds import repository
from payments_app.refunds.repository import Outcome, PendingRefund, RefundRequest, Render

log = logging.getLogger(__name__)

# After that a refund that its gateway does not know is staff's to decide: by then even slow gateways would list it.
STAFF_DECIDE_AFTER = timedelta(hours=24)

# Refunds read at a time.
BATCH_SIZE = 500


def repeats_since(at: datetime, window_seconds: int) -> datetime | None:
    """From when on a refund of the same amount counts as pressed twice; None if the settings refuse none."""
    return at - timedelta(seconds=window_seconds) if window_seconds else None


def refund(wanted: ChangeCommand, wish: RefundRequest, *, lease_seconds: int, render: Render) -> StoredResponse:
    """Return money. The answer says what came of it: 200 succeeded, 202 on its way or unknown, 402 declined.

    Raises:
        LockTimeout: a configured lock was not had in time (409, retryable).
        AppError: whatever ``repository.place`` raises; nothing was sent then.
    """
    placed = under_lock(
        wanted.request,
        lock=locks.change_lock(wanted.payment_id),
        execute=lambda: repository.reserve(wanted, wish, lease_seconds=lease_seconds, render=render),
    )
    if isinstance(placed, StoredResponse):
        record_duplicate(wanted.request, "key")
        return placed
    refund, interim = placed
    outcome = find_gateway(refund.gateway).refund(refund.order)
    _log_unknown(refund, outcome)
    try:
        return repository.settle(refund.order.refund_id, outcome, wanted=wanted, render=render)
    except (VersionConflict, Unavailable):
        log.warning("refund %d is left to resume: its outcome could not be written", refund.order.refund_id)
        return interim


def find_open(now: datetime) -> Iterator[int]:
    """The ids of all open refunds that nobody is at work on."""
    last_id = 0
    while batch := repository.find_open(after_id=last_id, now=now, size=BATCH_SIZE):
        yield from batch
        last_id = batch[-1]


def resume(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """Find out what became of an open refund, and finish it; None where somebody else is at work on it.

    Raises:
        GatewayUnavailable: its gateway is not configured any more (503).
    """
    placed = _acquire_lease(refund_id, lease_seconds)
    if placed is None:
        return None
    outcome = _query_gateway(find_gateway(placed.gateway), placed)
    _log_unknown(placed, outcome)
    return repository.settle_resumed(refund_id, outcome, context=context)


def give_up(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """``resume``, for staff who have seen that the gateway never made it: one too old to be sent again has failed.

    Raises:
        RefundNotFound: no such refund (404).
        GatewayUnavailable: its gateway is not configured any more (503).
    """
    repository.get(refund_id)
    placed = _acquire_lease(refund_id, lease_seconds)
    if placed is None:
        return None
    outcome = _query_gateway(find_gateway(placed.gateway), placed)
    if outcome is _LEFT_TO_STAFF:
        return repository.give_up(refund_id, context=context)
    return repository.settle_resumed(refund_id, outcome, context=context)


def send_again(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """``resume``, for staff who have seen that the gateway never made it: one too old for resume is sent once more.

    Raises:
        RefundNotFound: no such refund (404).
        GatewayUnavailable: its gateway is not configured any more (503).
    """
    repository.get(refund_id)
    placed = _acquire_lease(refund_id, lease_seconds)
    if placed is None:
        return None
    gateway = find_gateway(placed.gateway)
    outcome = _query_gateway(gateway, placed)
    if outcome is _LEFT_TO_STAFF:
        outcome = gateway.refund(placed.order)
        _log_unknown(placed, outcome)
    return repository.settle_resumed(refund_id, outcome, context=context)


_LEFT_TO_STAFF = OutcomeUnknown("not there, and too old to be sent again: the gateway may have forgotten its key")
_NOT_YET_KNOWN = OutcomeUnknown("not there so far, and never sent again by itself: the gateway remembers no keys")


def _acquire_lease(refund_id: int, lease_seconds: int) -> PendingRefund | None:
    now = clock.now()
    return repository.acquire_lease(refund_id, now=now, until=now + timedelta(seconds=lease_seconds))


def _query_gateway(gateway: Gateway, placed: PendingRefund) -> Outcome:
    known = gateway.look_up_refund(placed.order)
    if known is not None:
        return known
    age = clock.now() - placed.created_at
    if gateway.capabilities.remembers_key(age):
        return gateway.refund(placed.order)
    if gateway.capabilities.remembers_keys_seconds is None and age < STAFF_DECIDE_AFTER:
        return _NOT_YET_KNOWN
    return _LEFT_TO_STAFF


def _log_unknown(placed: PendingRefund, outcome: Outcome) -> None:
    if isinstance(outcome, OutcomeUnknown):
        log.warning("refund %d of payment %d: %s", placed.order.refund_id, placed.order.payment_id, outcome.reason)

"""Makes a refund: reserve the money, call the gateway, settle. Two short transactions, the gateway call between them.

If the process dies at any point, the refund's row shows the last committed step, and ``resume`` finishes it. It looks
the refund up at the gateway first. It sends it again only under the same gateway key, and only while the gateway is
sure to remember that key. A gateway that remembers no keys is only sent a refund again if staff say so.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta

from config import Settings
from payments_app import clock
from payments_app.errors import LockTimeout, PaymentDisputed, Unavailable, VersionConflict
from payments_app.gateways.base import Gateway, OutcomeUnknown
from payments_app.gateways.registry import find_gateway
from payments_app.idempotency.request import StoredResponse
from payments_app.idempotency.service import record_duplicate, under_lock
from payments_app.locking import locks
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.refund import Refund
from payments_app.payments.repository import ChangeCommand
from payments_app.refunds import repository
from payments_app.refunds.repository import Outcome, PendingRefund, RefundRequest, RefundTerms, Render

log = logging.getLogger(__name__)

# After that a refund that its gateway does not know is staff's to decide: by then even slow gateways would list it.
STAFF_DECIDE_AFTER = timedelta(hours=24)

# Refunds per query.
BATCH_SIZE = 500


def terms_of(settings: Settings) -> RefundTerms:
    return RefundTerms(settings.refund_lease_seconds, settings.refund_approval_above_minor)


def repeats_since(at: datetime, window_seconds: int) -> datetime | None:
    """The time since when a refund of the same amount counts as a repetition; None if the window is 0 s: no check."""
    return at - timedelta(seconds=window_seconds) if window_seconds else None


def refund(
    change: ChangeCommand, refund_request: RefundRequest, *, terms: RefundTerms, render: Render
) -> StoredResponse:
    """Refund money. The response's status shows the outcome: 200 succeeded, 202 open, 402 declined.

    Raises:
        LockTimeout: a lock was not acquired in time; nothing was sent (409, retryable).
        AppError: every error of ``repository.reserve``; nothing was sent then.
    """
    return _send(
        change,
        lambda place: repository.reserve(change, refund_request, terms=terms, render=render, place=place),
        render,
    )


def approve(change: ChangeCommand, refund_id: int, *, lease_seconds: int, render: Render) -> StoredResponse:
    """Approve a refund that another admin requested, and send it. The response is as that of ``refund``.

    Raises:
        LockTimeout: a lock was not acquired in time; nothing was sent (409, retryable).
        AppError: every error of ``repository.approve``; nothing was sent then.
    """
    return _send(
        change,
        lambda place: repository.approve(
            refund_id, change=change, lease_seconds=lease_seconds, render=render, place=place
        ),
        render,
    )


def reject(change: ChangeCommand, refund_id: int, reason: str, *, render: Render) -> StoredResponse:
    """Reject a refund that another admin requested.

    Raises:
        LockTimeout: a lock was not acquired in time (409, retryable).
        AppError: every error of ``repository.reject``.
    """
    return _write(change, lambda: repository.reject(refund_id, reason, change=change, render=render))


def settle_by_hand(change: ChangeCommand, refund_id: int, reference: str, *, render: Render) -> StoredResponse:
    """Record that staff have sent the money of a refund by hand.

    Raises:
        LockTimeout: a lock was not acquired in time (409, retryable).
        AppError: every error of ``repository.settle_by_hand``.
    """
    return _write(change, lambda: repository.settle_by_hand(refund_id, reference, change=change, render=render))


def _write(change: ChangeCommand, write: Callable[[], StoredResponse]) -> StoredResponse:
    response = under_lock(change.request, lock=locks.change_lock(change.payment_id), execute=write)
    if response.replayed:
        record_duplicate(change.request, "key")
    return response


def _send(
    change: ChangeCommand,
    reserve: Callable[[ExitStack], StoredResponse | tuple[PendingRefund, StoredResponse]],
    render: Render,
) -> StoredResponse:
    with ExitStack() as place:
        reserved = under_lock(change.request, lock=locks.change_lock(change.payment_id), execute=lambda: reserve(place))
        if isinstance(reserved, StoredResponse):
            if reserved.replayed:
                record_duplicate(change.request, "key")
            return reserved
        pending, interim = reserved
        outcome = find_gateway(pending.gateway).refund(pending.request)
    _log_unknown(pending, outcome)
    try:
        return repository.settle(
            pending.request.refund_id, outcome, change=change, render=render, reserved=pending.payment
        )
    except (LockTimeout, VersionConflict, Unavailable):
        log.warning("refund %d stays open for resume: its outcome could not be written", pending.request.refund_id)
        return interim


def find_open(now: datetime) -> Iterator[int]:
    """Ids of all open refunds without a current lease, in ascending order."""
    last_id = 0
    while batch := repository.find_open(after_id=last_id, now=now, size=BATCH_SIZE):
        yield from batch
        last_id = batch[-1]


def find_without_note() -> Iterator[int]:
    """Ids of all refunds that have earned a credit note and have none, in ascending order."""
    last_id = 0
    while batch := repository.find_without_note(after_id=last_id, size=BATCH_SIZE):
        yield from batch
        last_id = batch[-1]


def resume(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """Look an open refund up at its gateway, and settle it. None if it is settled or another process works on it.

    Raises:
        PaymentDisputed: the gateway does not know it, and the payment is disputed, so it is not sent (409).
        GatewayUnavailable: its gateway is no longer configured, or is silent; nothing changed (503).
    """
    with ExitStack() as place:
        pending = _acquire_lease(refund_id, lease_seconds, place)
        if pending is None:
            return None
        outcome = _query_gateway(find_gateway(pending.gateway), pending)
    _log_unknown(pending, outcome)
    return _settle_resumed(refund_id, outcome, context)


def give_up(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """``resume``, but a refund that the gateway does not have and that is too old to send again is marked failed.

    For staff who have checked that the gateway never made the refund, or who do not send the money of one by hand.

    Raises:
        RefundNotFound: no such refund (404).
        GatewayUnavailable: its gateway is no longer configured, or is silent; nothing changed (503).
    """
    if repository.get(refund_id).by_hand:
        return repository.give_up_by_hand(refund_id, context=context)
    with ExitStack() as place:
        pending = _acquire_lease(refund_id, lease_seconds, place)
        if pending is None:
            return None
        outcome = _query_gateway(find_gateway(pending.gateway), pending)
    if outcome is _LEFT_TO_STAFF:
        return repository.give_up(refund_id, context=context)
    return repository.settle_resumed(refund_id, outcome, context=context)


def send_again(refund_id: int, *, lease_seconds: int, context: AuditContext) -> Refund | None:
    """Like ``resume``, for staff who saw that the gateway never made the refund: if too old, it is sent once more.

    Raises:
        RefundNotFound: no such refund (404).
        PaymentDisputed: the gateway does not know it, and the payment is disputed, so it is not sent (409).
        GatewayUnavailable: its gateway is no longer configured, or is silent; nothing changed (503).
    """
    repository.get(refund_id)
    with ExitStack() as place:
        pending = _acquire_lease(refund_id, lease_seconds, place)
        if pending is None:
            return None
        gateway = find_gateway(pending.gateway)
        outcome = _query_gateway(gateway, pending)
        if outcome is _LEFT_TO_STAFF:
            outcome = gateway.refund(pending.request) if pending.may_be_sent else _DISPUTED
            _log_unknown(pending, outcome)
    return _settle_resumed(refund_id, outcome, context)


def _settle_resumed(refund_id: int, outcome: Outcome, context: AuditContext) -> Refund:
    refund = repository.settle_resumed(refund_id, outcome, context=context)
    if outcome is _DISPUTED:
        raise PaymentDisputed
    return refund


_LEFT_TO_STAFF = OutcomeUnknown("not found, and too old to be sent again: the gateway may have forgotten its key")
_NOT_YET_KNOWN = OutcomeUnknown("not found so far, and never sent again by itself: the gateway remembers no keys")
_DISPUTED = OutcomeUnknown("not found, and not sent again: the patient's bank disputes the payment")


def _acquire_lease(refund_id: int, lease_seconds: int, place: ExitStack) -> PendingRefund | None:
    now = clock.now()
    return repository.acquire_lease(refund_id, now=now, until=now + timedelta(seconds=lease_seconds), place=place)


def _query_gateway(gateway: Gateway, pending: PendingRefund) -> Outcome:
    known = gateway.look_up_refund(pending.request)
    if known is not None:
        return known
    age = clock.now() - pending.first_sent_at
    if gateway.capabilities.remembers_key(age):
        return gateway.refund(pending.request) if pending.may_be_sent else _DISPUTED
    if gateway.capabilities.remembers_keys_seconds is None and age < STAFF_DECIDE_AFTER:
        return _NOT_YET_KNOWN
    return _LEFT_TO_STAFF


def _log_unknown(pending: PendingRefund, outcome: Outcome) -> None:
    if isinstance(outcome, OutcomeUnknown):
        log.warning(
            "refund %d of payment %d: %s", pending.request.refund_id, pending.request.payment_id, outcome.reason
        )

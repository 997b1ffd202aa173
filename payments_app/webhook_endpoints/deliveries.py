"""The sender's statements: deliveries made from the feed, leased, settled and deleted.

An endpoint's row is locked before its deliveries are changed, so that senders and operators take turns. All times are
the database's, which all senders share. If it jumps back, a lease or a pause that ends later than any of ours is over;
and for a minute after a jump no lease is taken over (``ClockWatch``).
"""

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, literal, null, or_, select, update
from sqlalchemy.orm import Session

from payments_app.db.base import dialect_insert
from payments_app.db.transaction import after_commit, read_transaction, write_transaction
from payments_app.observability.logging import get_logger
from payments_app.payments.models.event import PaymentEvent
from payments_app.webhook_endpoints.models import (
    ALL_TYPES,
    ATTEMPTS_AFTER_SECONDS,
    DeliveryError,
    DeliveryStatus,
    WebhookDelivery,
    WebhookEndpoint,
)
from payments_app.webhook_endpoints.repository import IS_ACTIVE, database_time, give_up, give_up_pending

log = get_logger(__name__)

# For so long a sender has the deliveries that it took: it begins none of them in the last half.
LEASE = timedelta(seconds=60)

# A change of the database's clock against ours that is no drift. A smaller one ends no lease that is in use, because
# nothing is begun in a lease's last half.
JUMP = LEASE / 4

# The longest pause before an attempt, and a little more.
_LONGEST_PAUSE = timedelta(seconds=max(ATTEMPTS_AFTER_SECONDS) + 60)

# Events of which deliveries to one endpoint are made in one transaction.
FAN_OUT_SIZE = 1_000

# Rows deleted in one transaction.
PRUNE_SIZE = 1_000

KEPT_AFTER_DELIVERY = timedelta(days=30)

_IS_PENDING = WebhookDelivery.status == DeliveryStatus.PENDING.value


class Lane(NamedTuple):
    """What goes out to one endpoint one after the other: its first attempts, in the order of position; or the attempts
    after them. ``is_failing``: the endpoint took nothing lately.
    """

    endpoint_id: int
    is_first: bool
    is_failing: bool


@dataclass(frozen=True, slots=True)
class Leased:
    """A delivery that this process may send. ``event_id``: None for a ping."""

    id: int
    endpoint_id: int
    event_id: int | None
    webhook_id: str
    created_at: datetime
    lease: str


class Target(NamedTuple):
    """Where an attempt goes, and what signs it."""

    url: str
    secrets: Sequence[str]
    signed_at: datetime


class ClockWatch:
    """One sender's watch over the database's clock, by the monotonic clock of its machine.

    After a jump, a lease that looks ended may still be held. So none is taken over until the clock has run for the time
    of a lease without a jump; nor at first, because a jump may have come just before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._difference_seconds: float | None = None
        self._steady_at = 0.0

    def may_take_over(self, now: datetime) -> bool:
        """Whether leases that look ended are. ``now``: the database's time, read just before."""
        monotonic = time.monotonic()
        difference = now.timestamp() - monotonic
        with self._lock:
            before = self._difference_seconds
            if before is None or abs(difference - before) > JUMP.total_seconds():
                self._difference_seconds, self._steady_at = difference, monotonic + LEASE.total_seconds()
                if before is not None:
                    seconds = round(difference - before)
                    log.warning("Webhook sender: the database's clock jumped", seconds=seconds)
            return monotonic >= self._steady_at


@read_transaction
def now(session: Session) -> datetime:
    """The database's time; on SQLite this machine's."""
    return database_time(session)


@read_transaction
def find_behind(session: Session) -> Sequence[int]:
    """Ids of the enabled endpoints for which there are events after those of which deliveries were made."""
    last = select(func.max(PaymentEvent.position)).scalar_subquery()
    return session.scalars(select(WebhookEndpoint.id).where(IS_ACTIVE, WebhookEndpoint.position < last)).all()


@write_transaction
def fan_out(session: Session, endpoint_id: int) -> bool:
    """Make deliveries of the next events for an endpoint; whether there may be more of them."""
    endpoint = _lock(session, endpoint_id)
    if endpoint is None:
        return False
    behind = select(PaymentEvent.position).where(PaymentEvent.position > endpoint.position)
    next_positions = behind.order_by(PaymentEvent.position).limit(FAN_OUT_SIZE).subquery()
    last, number = session.execute(select(func.max(next_positions.c.position), func.count())).one()
    if last is None:
        return False
    moment = literal(database_time(session), WebhookDelivery.created_at.type)
    wanted = [PaymentEvent.position > endpoint.position, PaymentEvent.position <= last]
    if endpoint.types != ALL_TYPES:
        wanted.append(PaymentEvent.event.in_(endpoint.types.split()))
    source = select(
        literal(endpoint_id),
        PaymentEvent.id,
        PaymentEvent.position,
        literal(DeliveryStatus.PENDING.value),
        literal(0),
        moment,
        moment,
    ).where(*wanted)
    columns = ["endpoint_id", "event_id", "position", "status", "attempts", "next_attempt_at", "created_at"]
    made = dialect_insert(session, WebhookDelivery).from_select(columns, source.order_by(PaymentEvent.position))
    session.execute(made.on_conflict_do_nothing(index_elements=["event_id", "endpoint_id"]))
    endpoint.position = last
    return bool(number == FAN_OUT_SIZE)


@read_transaction
def find_lanes(session: Session, watch: ClockWatch | None, *, due_at: datetime | None) -> Sequence[Lane]:
    """Lanes with something to send that nobody else has leased. ``due_at``: None for now.

    ``watch``: None for a sender that ends too soon to watch, and trusts the database's clock.
    """
    now = database_time(session)
    of_endpoint = and_(WebhookDelivery.endpoint_id == WebhookEndpoint.id, _IS_PENDING, _is_free(now, watch))
    first = exists().where(of_endpoint, WebhookDelivery.attempts == 0)
    again = exists().where(of_endpoint, WebhookDelivery.attempts > 0, _is_due(due_at or now))
    is_failing = WebhookEndpoint.failing_since.is_not(None)
    rows = session.execute(select(WebhookEndpoint.id, is_failing, first, again).where(IS_ACTIVE))
    return [
        Lane(endpoint_id, is_first=is_first, is_failing=is_failing)
        for endpoint_id, is_failing, *has in rows
        for is_first, has_some in zip((True, False), has, strict=True)
        if has_some
    ]


@write_transaction
def lease(
    session: Session, lane: Lane, watch: ClockWatch | None, *, at_most: int, due_at: datetime | None
) -> Sequence[Leased]:
    """The next deliveries of a lane, which nobody else sends for the time of ``LEASE``.

    None while another process has some of the same lane: a lane is sent one after the other.
    """
    endpoint = _lock(session, lane.endpoint_id)
    if endpoint is None:
        return []
    now = database_time(session)
    is_of_lane = WebhookDelivery.attempts == 0 if lane.is_first else WebhookDelivery.attempts > 0
    of_lane = and_(WebhookDelivery.endpoint_id == endpoint.id, _IS_PENDING, is_of_lane)
    if session.scalar(select(exists().where(of_lane, ~_is_free(now, watch)))):
        return []
    # First attempts do not wait for a time: their order is all.
    wanted = select(WebhookDelivery, PaymentEvent.created_at).outerjoin(
        PaymentEvent, PaymentEvent.id == WebhookDelivery.event_id
    )
    if lane.is_first:
        wanted = wanted.where(of_lane).order_by(WebhookDelivery.position, WebhookDelivery.id)
    else:
        wanted = wanted.where(of_lane, _is_due(due_at or now)).order_by(WebhookDelivery.next_attempt_at)
    rows = session.execute(wanted.limit(at_most)).all()
    name = uuid.uuid4().hex
    ids = [delivery.id for delivery, _ in rows]
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(ids))
        .values(lease=name, leased_until=now + LEASE)
        .execution_options(synchronize_session=False)
    )
    return [
        Leased(
            id=delivery.id,
            endpoint_id=endpoint.id,
            event_id=delivery.event_id,
            webhook_id=delivery.webhook_id(event_created_at),
            created_at=delivery.created_at,
            lease=name,
        )
        for delivery, event_created_at in rows
    ]


@read_transaction
def find_target(session: Session, leased: Leased) -> Target | None:
    """Where to send a delivery at this moment; None if it is no longer to be sent, or no longer by this process."""
    endpoint = session.scalar(
        select(WebhookEndpoint)
        .join(WebhookDelivery, WebhookDelivery.endpoint_id == WebhookEndpoint.id)
        .where(IS_ACTIVE, _IS_PENDING, WebhookDelivery.id == leased.id, WebhookDelivery.lease == leased.lease)
    )
    if endpoint is None:
        return None
    now = database_time(session)
    return Target(endpoint.url, endpoint.secrets_at(now), signed_at=now)


@write_transaction
def settle_success(session: Session, leased: Leased, *, status_code: int | None) -> None:
    """The endpoint has taken it: whatever became of the row meanwhile, that is so."""
    endpoint = session.get(WebhookEndpoint, leased.endpoint_id, with_for_update=True)
    delivery = session.get(WebhookDelivery, leased.id)
    if endpoint is None or delivery is None or delivery.status == DeliveryStatus.DELIVERED:
        return
    now = database_time(session)
    delivery.succeed(now, status_code=status_code)
    endpoint.note_delivered(now)


@write_transaction
def settle_failure(session: Session, leased: Leased, *, status_code: int | None, error: DeliveryError) -> bool:
    """The endpoint has not taken it; whether that disabled the endpoint. Without the lease it has no effect."""
    endpoint = session.get(WebhookEndpoint, leased.endpoint_id, with_for_update=True)
    delivery = session.get(WebhookDelivery, leased.id)
    if endpoint is None or delivery is None or delivery.lease != leased.lease:
        return False
    now = database_time(session)
    delivery.fail(now, status_code=status_code, error=error)
    endpoint.note_failed(now, is_gone=error == DeliveryError.GONE)
    if endpoint.is_enabled:
        return False
    reason = endpoint.disabled_reason
    after_commit(
        endpoint, lambda: log.warning("Webhook endpoint: disabled", endpoint_id=leased.endpoint_id, reason=reason)
    )
    session.flush()
    give_up_pending(session, endpoint)
    return True


@write_transaction
def release(session: Session, leased: Sequence[Leased]) -> None:
    """Leave deliveries that were not sent to the next who asks."""
    if not leased:
        return
    session.get(WebhookEndpoint, leased[0].endpoint_id, with_for_update=True)
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_([each.id for each in leased]), WebhookDelivery.lease == leased[0].lease)
        .values(lease=null(), leased_until=null())
    )


@write_transaction
def prune(session: Session) -> int:
    """Delete some deliveries that are 30 days old, and of endpoints that were deleted; give up some of disabled ones.

    Returns how many.
    """
    deleted = select(WebhookEndpoint.id).where(WebhookEndpoint.deleted_at.is_not(None))
    is_old = and_(
        WebhookDelivery.status == DeliveryStatus.DELIVERED.value,
        WebhookDelivery.delivered_at < database_time(session) - KEPT_AFTER_DELIVERY,
    )
    number = 0
    for condition in (is_old, WebhookDelivery.endpoint_id.in_(deleted)):
        ids = select(WebhookDelivery.id).where(condition).limit(PRUNE_SIZE).with_for_update(skip_locked=True)
        gone = session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)).returning(WebhookDelivery.id))
        number += len(gone.all())
    disabled = select(WebhookEndpoint.id).where(WebhookEndpoint.disabled_at.is_not(None))
    return number + give_up(session, and_(_IS_PENDING, WebhookDelivery.endpoint_id.in_(disabled)), at_most=PRUNE_SIZE)


def _lock(session: Session, endpoint_id: int) -> WebhookEndpoint | None:
    """An enabled endpoint; None also while another process has its row, which does the same."""
    wanted = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, IS_ACTIVE)
    return session.scalar(wanted.with_for_update(skip_locked=True))


def _is_free(now: datetime, watch: ClockWatch | None) -> ColumnElement[bool]:
    until = WebhookDelivery.leased_until
    if watch is not None and not watch.may_take_over(now):
        return until.is_(None)
    return or_(until.is_(None), until <= now, until > now + LEASE)


def _is_due(now: datetime) -> ColumnElement[bool]:
    return or_(WebhookDelivery.next_attempt_at <= now, WebhookDelivery.next_attempt_at > now + _LONGEST_PAUSE)

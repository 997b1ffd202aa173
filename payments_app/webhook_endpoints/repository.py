"""Webhook endpoints in the database: made, changed, listed and deleted; and their deliveries, as operators see them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, null, select, update
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.accounts.repository import require_valid
from payments_app.db.transaction import after_commit, read_transaction, write_transaction
from payments_app.errors import NotFound, WebhookEndpointDisabled
from payments_app.events.positions import find_oldest_waiting
from payments_app.i18n.messages import N_
from payments_app.observability.logging import get_logger
from payments_app.pagination import Page
from payments_app.payments.models.event import PaymentEvent
from payments_app.webhook_endpoints.models import (
    ALL_TYPES,
    DeliveryError,
    DeliveryStatus,
    DisabledReason,
    WebhookDelivery,
    WebhookEndpoint,
)
from payments_app.webhook_endpoints.signing import new_secret

log = get_logger(__name__)

# Deliveries given up in one transaction: a tenth of a statement's time.
GIVEN_UP_AT_ONCE = 10_000

IS_ACTIVE = and_(WebhookEndpoint.disabled_at.is_(None), WebhookEndpoint.deleted_at.is_(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """An endpoint to be made. ``types``: names of events; ``ALL_TYPES`` stands for all of them."""

    url: str
    types: Collection[str]
    description: str | None = None
    is_enabled: bool = True


def create(new: NewEndpoint, *, caller: Caller) -> WebhookEndpoint:
    """Make an endpoint, which hears of what gets a position from now on.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
    """
    return _insert(new, new_secret(), caller=caller)


@write_transaction
def _insert(session: Session, new: NewEndpoint, secret: str, *, caller: Caller) -> WebhookEndpoint:
    require_valid(session, caller)
    made = session.scalar(select(WebhookEndpoint).where(WebhookEndpoint.secret == secret))
    if made is not None:  # by an earlier attempt, whose confirmation was lost
        return made
    now = clock.now()
    made = WebhookEndpoint(
        url=new.url,
        types=_joined(new.types),
        description=new.description,
        secret=secret,
        position=_last_position(session),
        created_by=caller.actor,
        created_at=now,
    )
    if not new.is_enabled:
        made.disable(DisabledReason.BY_HAND, now)
    session.add(made)
    session.flush()
    _log(made, "Webhook endpoint: created", caller)
    return made


@read_transaction
def get(session: Session, endpoint_id: int) -> WebhookEndpoint:
    """One endpoint.

    Raises:
        NotFound: no such endpoint, or it was deleted (404).
    """
    return _require(session.get(WebhookEndpoint, endpoint_id))


@read_transaction
def list_page(session: Session, *, before_id: int | None, per_page: int) -> Page[WebhookEndpoint]:
    """Endpoints, newest first."""
    wanted = select(WebhookEndpoint).where(WebhookEndpoint.deleted_at.is_(None))
    if before_id is not None:
        wanted = wanted.where(WebhookEndpoint.id < before_id)
    return Page.cut(session.scalars(wanted.order_by(WebhookEndpoint.id.desc()).limit(per_page + 1)).all(), per_page)


@write_transaction
def change(session: Session, endpoint_id: int, changes: Mapping[str, Any], *, caller: Caller) -> WebhookEndpoint:
    """Set members of an endpoint: ``url``, ``types``, ``description``, ``is_enabled``.

    An attempt that begins afterwards follows the change. Once disabled, what was not delivered is given up; enabled
    again, the endpoint hears of what gets a position from then on.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
        NotFound: no such endpoint, or it was deleted (404).
    """
    require_valid(session, caller)
    endpoint = _lock(session, endpoint_id)
    if "url" in changes:
        endpoint.url = changes["url"]
    if "types" in changes:
        endpoint.types = _joined(changes["types"])
    if "description" in changes:
        endpoint.description = changes["description"]
    wanted = changes.get("is_enabled", endpoint.is_enabled)
    if endpoint.is_enabled and not wanted:
        endpoint.disable(DisabledReason.BY_HAND, clock.now())
        give_up_pending(session, endpoint)
    elif wanted and not endpoint.is_enabled:
        give_up_pending(session, endpoint)  # what the sender has not got to
        endpoint.enable(position=_last_position(session))
    _log(endpoint, "Webhook endpoint: changed", caller)
    return endpoint


@write_transaction
def delete(session: Session, endpoint_id: int, *, caller: Caller) -> None:
    """Delete an endpoint. An attempt that has begun ends; no other begins. The sender deletes its deliveries.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
        NotFound: no such endpoint, or it was deleted before (404).
    """
    require_valid(session, caller)
    endpoint = _lock(session, endpoint_id)
    endpoint.delete(clock.now())
    _log(endpoint, "Webhook endpoint: deleted", caller)


def rotate_secret(endpoint_id: int, *, overlap: timedelta, caller: Caller) -> WebhookEndpoint:
    """Give an endpoint a new secret. The one before it signs too, for the ``overlap``; one before that no longer.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
        NotFound: no such endpoint, or it was deleted (404).
    """
    return _rotate(endpoint_id, new_secret(), overlap=overlap, caller=caller)


@write_transaction
def _rotate(session: Session, endpoint_id: int, secret: str, *, overlap: timedelta, caller: Caller) -> WebhookEndpoint:
    require_valid(session, caller)
    endpoint = _lock(session, endpoint_id)
    if endpoint.secret != secret:  # an earlier attempt may have committed, and its confirmation was lost
        endpoint.rotate(secret, previous_ends_at=database_time(session) + overlap)
        _log(endpoint, "Webhook endpoint: secret rotated", caller)
    return endpoint


class ShownDelivery(NamedTuple):
    """A delivery, and the type and time of its event; both None for a ping."""

    delivery: WebhookDelivery
    type: str | None
    event_created_at: datetime | None

    @property
    def webhook_id(self) -> str:
        return self.delivery.webhook_id(self.event_created_at)


@write_transaction
def ping(session: Session, endpoint_id: int, *, caller: Caller) -> ShownDelivery:
    """Have the sender send a ping: signed as events are, without a position.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
        NotFound: no such endpoint, or it was deleted (404).
        WebhookEndpointDisabled: nothing is sent to it (409).
    """
    require_valid(session, caller)
    endpoint = _require_enabled(_lock(session, endpoint_id))
    now = clock.now()
    made = WebhookDelivery(endpoint_id=endpoint.id, position=0, next_attempt_at=now, created_at=now)
    session.add(made)
    session.flush()
    return ShownDelivery(made, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries of an endpoint a list shows; ``before_id`` is the id behind which the page begins."""

    status: str | None
    before_id: int | None
    per_page: int


@read_transaction
def list_deliveries(session: Session, endpoint_id: int, shown: DeliveryFilter) -> Page[ShownDelivery]:
    """Deliveries to an endpoint, newest first.

    Raises:
        NotFound: no such endpoint, or it was deleted (404).
    """
    _require(session.get(WebhookEndpoint, endpoint_id))
    wanted = (
        select(WebhookDelivery, PaymentEvent.event, PaymentEvent.created_at)
        .outerjoin(PaymentEvent, PaymentEvent.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.endpoint_id == endpoint_id)
    )
    if shown.status is not None:
        wanted = wanted.where(WebhookDelivery.status == shown.status)
    if shown.before_id is not None:
        wanted = wanted.where(WebhookDelivery.id < shown.before_id)
    rows = session.execute(wanted.order_by(WebhookDelivery.id.desc()).limit(shown.per_page + 1)).all()
    return Page.cut([ShownDelivery(*row) for row in rows], shown.per_page)


@write_transaction
def retry(session: Session, endpoint_id: int, delivery_id: int, *, caller: Caller) -> ShownDelivery:
    """Have a delivery sent at once: one that waits for its next attempt, was given up, or was delivered before.

    Raises:
        NotAuthenticated: the user was disabled, or their tokens or their API key ended (401).
        Forbidden: the user is no longer an admin (403).
        NotFound: no such endpoint, or it has no such delivery (404).
        WebhookEndpointDisabled: nothing is sent to it (409).
    """
    require_valid(session, caller)
    endpoint = _lock(session, endpoint_id)
    delivery = session.get(WebhookDelivery, delivery_id, populate_existing=True)
    if delivery is None or delivery.endpoint_id != endpoint_id:
        raise NotFound(N_("This endpoint has no such delivery."))
    _require_enabled(endpoint)
    delivery.repeat(database_time(session))
    after_commit(
        endpoint,
        lambda: log.info(
            "Webhook delivery: retried", endpoint_id=endpoint_id, delivery_id=delivery_id, actor=caller.actor
        ),
    )
    event = session.get(PaymentEvent, delivery.event_id) if delivery.event_id is not None else None
    return (
        ShownDelivery(delivery, None, None) if event is None else ShownDelivery(delivery, event.event, event.created_at)
    )


def give_up_pending(session: Session, endpoint: WebhookEndpoint) -> None:
    """Give up what was not delivered, under the endpoint's lock: nothing is sent to it any more.

    If that is very much, the sender gives up the rest (``deliveries.prune``).
    """
    is_pending = and_(
        WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == DeliveryStatus.PENDING.value
    )
    give_up(session, is_pending, at_most=GIVEN_UP_AT_ONCE)


def give_up(session: Session, condition: ColumnElement[bool], *, at_most: int) -> int:
    """Give up deliveries, and say how many."""
    ids = select(WebhookDelivery.id).where(condition).limit(at_most)
    given_up = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(ids))
        .values(
            status=DeliveryStatus.FAILED.value,
            last_error=DeliveryError.ENDPOINT_DISABLED.value,
            lease=null(),
            leased_until=null(),
        )
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(given_up.all())


@dataclass(frozen=True, slots=True)
class EndpointCounts:
    """How many endpoints there are, and how many attempts were made at all, deleted ones included.

    ``failing``: enabled, and the last attempt failed. ``disabled``: by the sender, not by hand.
    """

    enabled: int
    failing: int
    disabled: int
    attempts_delivered: int
    attempts_failed: int


@read_transaction
def count(session: Session) -> EndpointCounts:
    """Counts for metrics and ``check``."""
    is_failing = and_(IS_ACTIVE, WebhookEndpoint.failing_since.is_not(None))
    is_ended = and_(
        WebhookEndpoint.deleted_at.is_(None),
        WebhookEndpoint.disabled_reason.in_([DisabledReason.GONE.value, DisabledReason.FAILING.value]),
    )
    row = session.execute(
        select(
            func.count().filter(IS_ACTIVE),
            func.count().filter(is_failing),
            func.count().filter(is_ended),
            func.coalesce(func.sum(WebhookEndpoint.attempts_delivered), 0),
            func.coalesce(func.sum(WebhookEndpoint.attempts_failed), 0),
        ).select_from(WebhookEndpoint)
    ).one()
    return EndpointCounts(*map(int, row))


@read_transaction
def find_unsent_since(session: Session) -> datetime | None:
    """When the oldest event was made that was not yet sent once to an enabled endpoint; None if there is none.

    Counted too if no sender runs, so that it has neither a delivery nor a position.
    """
    of_endpoint = and_(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id,
        WebhookDelivery.status == DeliveryStatus.PENDING.value,
        WebhookDelivery.attempts == 0,
    )
    oldest = (
        select(WebhookDelivery.created_at)
        .where(of_endpoint)
        .order_by(WebhookDelivery.position, WebhookDelivery.id)
        .limit(1)
        .scalar_subquery()
    )
    made = session.scalars(select(oldest).select_from(WebhookEndpoint).where(IS_ACTIVE)).all()
    position = session.scalar(select(func.min(WebhookEndpoint.position)).where(IS_ACTIVE))
    if position is None:
        return None
    placed = session.scalar(
        select(PaymentEvent.created_at).where(PaymentEvent.position > position).order_by(PaymentEvent.position).limit(1)
    )
    waiting = find_oldest_waiting(session)
    return min((moment for moment in (*made, placed, waiting) if moment is not None), default=None)


def database_time(session: Session) -> datetime:
    """The database's, by which senders send; on SQLite this machine's."""
    if session.get_bind().dialect.name == "sqlite":
        return clock.now()
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def _joined(types: Collection[str]) -> str:
    return ALL_TYPES if ALL_TYPES in types else " ".join(sorted(set(types)))


def _last_position(session: Session) -> int:
    return session.scalar(select(func.coalesce(func.max(PaymentEvent.position), 0))) or 0


def _lock(session: Session, endpoint_id: int) -> WebhookEndpoint:
    return _require(session.get(WebhookEndpoint, endpoint_id, with_for_update=True))


def _require(endpoint: WebhookEndpoint | None) -> WebhookEndpoint:
    if endpoint is None or endpoint.deleted_at is not None:
        raise NotFound(N_("No such webhook endpoint."))
    return endpoint


def _require_enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    if not endpoint.is_enabled:
        raise WebhookEndpointDisabled
    return endpoint


def _log(endpoint: WebhookEndpoint, event: str, caller: Caller) -> None:
    endpoint_id = endpoint.id
    after_commit(endpoint, lambda: log.info(event, endpoint_id=endpoint_id, actor=caller.actor))

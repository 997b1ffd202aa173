"""Reads the feed: pages of events after a position."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, and_, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from payments_app.consultations.models import Consultation
from payments_app.db.transaction import read_transaction
from payments_app.errors import CursorLost
from payments_app.payments.models.event import PaymentEvent
from payments_app.payments.models.payment import Payment

# A page of events that fit a filter looks at no more than so many times its limit.
LOOKED_AT_PER_SHOWN = 10


class Position(NamedTuple):
    """A place in the feed, and the event that has it. The event's id and time tell whether it still has."""

    number: int
    event_id: int
    created_at: datetime


class FeedEvent(NamedTuple):
    """One event as the feed shows it; amounts in minor units."""

    position: int
    id: int
    created_at: datetime
    type: str
    payment_id: int
    consultation_id: int
    consultation_reference: str | None
    status: str
    version: int
    amount_minor: int
    currency: str
    refund_id: int | None
    refund_amount_minor: int | None
    dispute_id: int | None
    actor: str

    @property
    def place(self) -> Position:
        return Position(self.position, self.id, self.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFilter:
    """Which events a page shows. ``registered_by``: those of consultations that this user registered."""

    after: Position | None
    limit: int
    types: Sequence[str] = ()
    registered_by: int | None = None


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events in the order of their positions. ``end``: up to where the feed was looked at; None: at its beginning."""

    events: Sequence[FeedEvent]
    end: Position | None
    has_more: bool


_SHOWN: tuple[InstrumentedAttribute[Any], ...] = (
    PaymentEvent.position,
    PaymentEvent.id,
    PaymentEvent.created_at,
    PaymentEvent.event,
    PaymentEvent.payment_id,
    Payment.consultation_id,
    PaymentEvent.consultation_reference,
    PaymentEvent.to_status,
    PaymentEvent.version,
    Payment.amount_minor,
    Payment.currency,
    PaymentEvent.refund_id,
    PaymentEvent.refund_amount_minor,
    PaymentEvent.dispute_id,
    PaymentEvent.actor,
)


@read_transaction
def read_page(session: Session, shown: FeedFilter) -> FeedPage:
    """One page of the feed.

    Raises:
        CursorLost: another event, or none, has the position after which the page begins (410).
    """
    if shown.after is not None:
        _require_same(session, shown.after)
    is_filtered = bool(shown.types) or shown.registered_by is not None
    look = shown.limit * LOOKED_AT_PER_SHOWN if is_filtered else shown.limit + 1
    looked_at = _looked_at(shown, look)
    last = select(func.max(looked_at.c.position)).scalar_subquery()
    number = select(func.count()).select_from(looked_at).scalar_subquery()
    rows = session.execute(
        select(*_shown_of(looked_at), looked_at.c.fits, number.label("looked"))
        .join_from(looked_at, Payment, Payment.id == looked_at.c.payment_id)
        .where(or_(looked_at.c.fits, looked_at.c.position == last))
        .order_by(looked_at.c.position)
        .limit(shown.limit + 1)
    ).all()
    if not rows:
        return FeedPage([], shown.after, has_more=False)
    events = [FeedEvent(*row[: len(_SHOWN)]) for row in rows]
    if len(events) > shown.limit:  # the last row may not fit, but all before it do
        return FeedPage(events[:-1], events[-2].place, has_more=True)
    fitting = [event for event, row in zip(events, rows, strict=True) if row.fits]
    return FeedPage(fitting, events[-1].place, has_more=rows[0].looked == look)


@read_transaction
def find_events(session: Session, event_ids: Sequence[int]) -> dict[int, FeedEvent]:
    """Events that have their positions, by id, as the feed shows them."""
    wanted = select(*_SHOWN).join_from(PaymentEvent, Payment, Payment.id == PaymentEvent.payment_id)
    rows = session.execute(wanted.where(PaymentEvent.id.in_(event_ids), PaymentEvent.position.is_not(None)))
    return {event.id: event for event in (FeedEvent(*row) for row in rows)}


def _looked_at(shown: FeedFilter, look: int) -> CTE:
    """The next ``look`` events, whether or not they fit. The payments are joined afterwards, so that nothing is joined
    that is not looked at.
    """
    conditions: list[ColumnElement[bool]] = [PaymentEvent.event.in_(shown.types)] if shown.types else []
    if shown.registered_by is not None:
        registered_by = (
            select(Consultation.registered_by)
            .join_from(Payment, Consultation, Consultation.id == Payment.consultation_id)
            .where(Payment.id == PaymentEvent.payment_id)
            .scalar_subquery()
        )
        conditions.append(registered_by == shown.registered_by)
    after = 0 if shown.after is None else shown.after.number
    return (
        select(*(column for column in _SHOWN if column.class_ is PaymentEvent), and_(true(), *conditions).label("fits"))
        .where(PaymentEvent.position > after)
        .order_by(PaymentEvent.position)
        .limit(look)
        .cte("looked_at")
    )


def _shown_of(looked_at: CTE) -> list[Any]:
    return [looked_at.c[column.key] if column.class_ is PaymentEvent else column for column in _SHOWN]


def _require_same(session: Session, place: Position) -> None:
    there = session.execute(
        select(PaymentEvent.id, PaymentEvent.created_at).where(PaymentEvent.position == place.number)
    ).one_or_none()
    if there is None or (there.id, there.created_at) != (place.event_id, place.created_at):
        raise CursorLost


@read_transaction
def has_news(session: Session, after: Position | None) -> bool:
    """Whether an event has a position behind this one."""
    number = 0 if after is None else after.number
    return session.scalar(select(PaymentEvent.id).where(PaymentEvent.position > number).limit(1)) is not None

"""The sessions of a payment as rows: each is committed before its gateway is called, and says all that it is told.

All of it happens in transactions that hold the payment's row, so that one session is open at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CursorResult,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from payments_app.consultations.models import Consultation
from payments_app.db.base import constant, dialect_insert, table_of
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import GatewayRefused, InvalidTransition, VersionConflict
from payments_app.gateways.base import Charge, SessionRequest, SessionStatus
from payments_app.gateways.capabilities import Capabilities
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.gateway_session import ENDED, LOST, OPENING, GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PAID, PaymentStatus

_SESSIONS = table_of(GatewaySession)


def _value(column: str, name: str) -> BindParameter[Any]:
    return bindparam(name, type_=_SESSIONS.c[column].type)


def _has_status(status: str) -> ColumnElement[bool]:
    """The predicate of the index: there is none of all sessions."""
    return _SESSIONS.c.status == constant(status)


# An open session that is not its payment's first.
IS_NEWER = and_(_has_status(SessionStatus.OPEN), _SESSIONS.c.number > 1)

# Made once, because making a statement takes as long as sending it.
_OF_PAYMENT = bindparam("payment_id", type_=GatewaySession.payment_id.type)
_STILL_OPEN = select(GatewaySession).where(GatewaySession.payment_id == _OF_PAYMENT, _has_status(SessionStatus.OPEN))
_NEWER = DirectStatement(select(_SESSIONS.c.reference).where(_SESSIONS.c.payment_id == _OF_PAYMENT, IS_NEWER))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTerms:
    """What a new session is to be like, besides the payment. ``describe`` words a consultation without description."""

    language: str
    return_url: str
    describe: Callable[[int], str]
    lease_seconds: int
    deadlines: Deadlines


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session by which the patient can pay, or could until now."""

    charge: Charge
    gateway: str
    reference: str


def find_open_session(session: Session, payment_id: int) -> GatewaySession | None:
    """The session by which the payment could still be paid: an index allows one."""
    return session.scalars(_STILL_OPEN, {"payment_id": payment_id}).one_or_none()


def find_newest_session(session: Session, payment_id: int) -> GatewaySession | None:
    """The last session that the gateway has named, whatever became of it."""
    named = (GatewaySession.payment_id == payment_id, GatewaySession.reference.is_not(None))
    return session.scalars(select(GatewaySession).where(*named).order_by(GatewaySession.id.desc()).limit(1)).first()


def find_newer_session(session: Session, payment: Payment) -> OpenSession | None:
    """The payment's open session, if it had another one before: money may come by either."""
    for (reference,) in _NEWER.rows(session, {"payment_id": payment.id}):
        return OpenSession(payment.charge, payment.gateway, reference)
    return None


def has_other_session(session: Session, payment_id: int, reference: str) -> bool:
    """Whether the gateway can be asked about a session of the payment besides the one that it calls so."""
    others = (GatewaySession.payment_id == payment_id, GatewaySession.reference != reference)
    return session.scalars(select(GatewaySession.id).where(*others).limit(1)).first() is not None


def older_references(session: Session, payment_id: int) -> Sequence[str]:
    """The gateway's names for the payment's sessions that have ended without money, as far as we know; oldest first."""
    others = (SessionStatus.OPEN.value, SessionStatus.SUCCEEDED.value)
    ended = (GatewaySession.payment_id == payment_id, GatewaySession.status.not_in(others))
    named = select(GatewaySession.reference).where(*ended, GatewaySession.reference.is_not(None))
    return [str(reference) for reference in session.scalars(named.order_by(GatewaySession.id))]


@read_transaction
def find_sessions_of_paid(session: Session) -> Sequence[OpenSession]:
    """The newer sessions that are still open although their payments have money: the gateway did not answer before."""
    paid = select(Payment, GatewaySession.reference).join(GatewaySession, GatewaySession.payment_id == Payment.id)
    found = session.execute(paid.where(IS_NEWER, Payment.status.in_(PAID)))
    return [OpenSession(payment.charge, payment.gateway, str(reference)) for payment, reference in found]


@write_transaction
def end_row(session: Session, ended: OpenSession, at: datetime) -> None:
    """Write down that the gateway has ended the session. Core: a session has no version to guard."""
    row = (GatewaySession.gateway == ended.gateway, GatewaySession.reference == ended.reference)
    still_open = update(GatewaySession).where(*row, GatewaySession.status == SessionStatus.OPEN.value)
    session.execute(still_open.values(status=SessionStatus.CANCELLED.value, updated_at=at))


def prepare_session(
    session: Session, payment: Payment, capabilities: Capabilities, terms: SessionTerms, at: datetime
) -> tuple[GatewaySession, bool]:
    """The row of the session to pay by, and whether it is new: the open one, one that is being opened, or another.

    Raises:
        InvalidTransition: money is on its way by an older one (409).
        VersionConflict: another request is opening one, and the gateway would not know ours for the same (409).
    """
    description, rows = _sessions_to_go_on_with(session, payment)
    still_open = _with_status(rows, SessionStatus.OPEN)
    if still_open is not None:
        return still_open, False
    if payment.status != PaymentStatus.PENDING:
        raise InvalidTransition(payment_status=payment.status)
    leased_until = at + timedelta(seconds=terms.lease_seconds)
    row = _with_status(rows, OPENING)
    if row is not None and row.expires_at is not None and row.expires_at <= at:
        # The gateway would repeat its first response: a session that nobody can pay by any more.
        row.move_on(SessionStatus.EXPIRED, at)
        session.flush()
    elif row is not None:
        if capabilities.remembers_key(at - row.created_at):  # so to ask again opens no second one
            row.leased_until = leased_until
            session.flush()
            return row, False
        if row.leased_until is not None and row.leased_until > at:
            raise VersionConflict.lost_every_race()
        row.move_on(LOST, at)
        session.flush()
    new = {
        "payment_id": payment.id,
        "gateway": payment.gateway,
        "status": OPENING,
        "number": 1 + max((row.number or 0 for row in rows), default=0),
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "description": description or terms.describe(payment.consultation_id),
        "language": terms.language,
        "return_url": terms.return_url,
        "expires_at": _end_of(payment, capabilities, terms, at),
        "leased_until": leased_until,
        "created_at": at,
        "updated_at": at,
    }
    [(session_id,)] = _INSERT_OPENING.rows(session, new)
    return GatewaySession(id=session_id, **new), True


# All but what comes later.
_OF_OPENING = [name for name in _SESSIONS.c.keys() if name not in ("id", "reference", "refreshed_at")]  # noqa: SIM118  # columns are no dict
_INSERT_OPENING = DirectStatement(
    insert(_SESSIONS).values({name: _value(name, name) for name in _OF_OPENING}).returning(_SESSIONS.c.id)
)


def _with_status(rows: Sequence[GatewaySession], status: str) -> GatewaySession | None:
    """There is one at most, if an index says so."""
    return next((row for row in rows if row.status == status), None)


_NUMBERED = aliased(GatewaySession)
_HIGHEST_NUMBER = select(func.max(_NUMBERED.number)).where(_NUMBERED.payment_id == _OF_PAYMENT).scalar_subquery()
_TO_GO_ON_WITH = (
    select(Consultation.description, GatewaySession)
    .select_from(Consultation)
    .outerjoin(
        GatewaySession,
        and_(
            GatewaySession.payment_id == _OF_PAYMENT,
            or_(_has_status(SessionStatus.OPEN), _has_status(OPENING), GatewaySession.number == _HIGHEST_NUMBER),
        ),
    )
    .where(Consultation.id == bindparam("consultation_id", type_=Consultation.id.type))
)


def _sessions_to_go_on_with(session: Session, payment: Payment) -> tuple[str | None, Sequence[GatewaySession]]:
    """The consultation's description, and the payment's sessions that decide about the next one: those that have not
    ended, and the one with the highest number.
    """
    asked = {"payment_id": payment.id, "consultation_id": payment.consultation_id}
    found = session.execute(_TO_GO_ON_WITH, asked).all()
    return found[0].description, [row for _, row in found if row is not None]


def request_of(payment: Payment, row: GatewaySession) -> SessionRequest:
    """What the gateway is told, from the row alone: the same to the byte, however often it is asked."""
    assert row.number is not None  # noqa: S101  # for the type checker: rows without one have a reference
    return SessionRequest(
        charge=payment.charge,
        number=row.number,
        expires_at=row.expires_at,
        language=row.language or "en",
        description=row.description or "",
        return_url=row.return_url,
    )


_OTHER = _SESSIONS.alias()
# A session has no version to guard, so that this and the other changes of it need no ORM.
_NAME_OPENING = DirectStatement(
    update(_SESSIONS)
    .where(
        _SESSIONS.c.id == _value("id", "session_id"),
        _has_status(OPENING),
        ~exists().where(_OTHER.c.gateway == _SESSIONS.c.gateway, _OTHER.c.reference == _value("reference", "named")),
        ~exists().where(_OTHER.c.payment_id == _SESSIONS.c.payment_id, _OTHER.c.status == constant(SessionStatus.OPEN)),
    )
    .values(
        reference=_value("reference", "named"),
        status=SessionStatus.OPEN.value,
        leased_until=None,
        updated_at=_value("updated_at", "at"),
    )
    .returning(literal_column("1"))
)


def name_opening(session: Session, session_id: int, reference: str, at: datetime) -> bool:
    """``name_session`` in a single statement, for a session that the gateway has just opened.

    False, and nothing is written, if another one has taken its place, or a webhook has told of it before.
    """
    return bool(_NAME_OPENING.rows(session, {"session_id": session_id, "named": reference, "at": at}))


_TO_NAME = select(GatewaySession).where(
    or_(
        GatewaySession.id == bindparam("session_id", type_=GatewaySession.id.type),
        and_(GatewaySession.gateway == bindparam("gateway"), GatewaySession.reference == bindparam("reference")),
        and_(GatewaySession.payment_id == _OF_PAYMENT, _has_status(SessionStatus.OPEN)),
    )
)


def name_session(
    session: Session, payment: Payment, session_id: int, reference: str, at: datetime
) -> tuple[GatewaySession, bool]:
    """Write down how the gateway calls a session of the payment that was opened.

    Returns its row, and False if another one has taken its place.

    Raises:
        GatewayRefused: the gateway has given the session of another payment (502).
    """
    asked = {"session_id": session_id, "gateway": payment.gateway, "reference": reference, "payment_id": payment.id}
    found = session.scalars(_TO_NAME, asked).all()
    row = next(each for each in found if each.id == session_id)
    others = [each for each in found if each is not row]
    named_before = next((each for each in others if each.reference == reference), None)
    if named_before is not None:  # a webhook told of it before we could
        if named_before.payment_id != row.payment_id:
            raise GatewayRefused
        session.delete(named_before)
        session.flush()
        others.remove(named_before)
        row.take_over(named_before, at)
    row.reference = reference
    if row.status == OPENING:
        row.leased_until = None
        row.move_on(SessionStatus.CANCELLED if others else SessionStatus.OPEN, at)
    session.flush()
    return row, row.status not in ENDED


def store_session(session: Session, payment: Payment, reference: str, status: SessionStatus, *, at: datetime) -> bool:
    """Keep a session of the payment that a gateway tells of, and its state; one that has ended here stays as it is.

    Whether it was open until now: then no other one of the payment is.
    """
    ended = {"of_payment": payment.id, "of_gateway": payment.gateway, "named": reference, "status_then": status.value}
    has_ended = status != SessionStatus.OPEN
    if has_ended and _END_SESSION.rows(session, {**ended, "at": at}):  # mostly it is known
        return True
    new = {
        "payment_id": payment.id,
        "gateway": payment.gateway,
        "reference": reference,
        "status": status.value,
        "created_at": at,
        "updated_at": at,
    }
    # Of an open session there is nothing to say if it is known, or another one is open.
    added = session.execute(dialect_insert(session, GatewaySession).on_conflict_do_nothing(), new)
    assert isinstance(added, CursorResult)  # noqa: S101  # for the type checker: it is, of an INSERT
    # If it has become known between the two statements, a third one ends it.
    return has_ended and not added.rowcount and bool(_END_SESSION.rows(session, {**ended, "at": at}))


_END_SESSION = DirectStatement(
    update(_SESSIONS)
    .where(
        _SESSIONS.c.payment_id == _value("payment_id", "of_payment"),
        _SESSIONS.c.gateway == _value("gateway", "of_gateway"),
        _SESSIONS.c.reference == _value("reference", "named"),
        _has_status(SessionStatus.OPEN),
    )
    .values(status=_value("status", "status_then"), updated_at=_value("updated_at", "at"))
    .returning(literal_column("1"))
)


def close_sessions(session: Session, payment_id: int, at: datetime) -> set[str | None]:
    """Write down that the payment's sessions have ended; returns the gateway's names of those that were open.

    One that is being opened is given up: who opens it will find the payment so.
    """
    closed = session.execute(_CLOSE_SESSIONS, {"of_payment": payment_id, "at": at})
    return {reference for reference, status in closed if status != LOST}


# Core: a session has no version to guard.
_CLOSE_SESSIONS = (
    update(_SESSIONS)
    .where(
        _SESSIONS.c.payment_id == bindparam("of_payment", type_=_SESSIONS.c.payment_id.type),
        or_(_has_status(OPENING), _has_status(SessionStatus.OPEN)),
    )
    .values(
        status=case((_has_status(OPENING), LOST), else_=SessionStatus.CANCELLED.value),
        updated_at=bindparam("at", type_=_SESSIONS.c.updated_at.type),
    )
    .returning(_SESSIONS.c.reference, _SESSIONS.c.status)
)


def _end_of(payment: Payment, capabilities: Capabilities, terms: SessionTerms, at: datetime) -> datetime | None:
    """As near to the payment's own end as the gateway allows, in whole seconds."""
    if capabilities.session_seconds is None:
        return None
    shortest, longest = (timedelta(seconds=seconds) for seconds in capabilities.session_seconds)
    wanted = min(terms.deadlines.end_of(payment, None), at + longest)
    return max(at + shortest, wanted).replace(microsecond=0)

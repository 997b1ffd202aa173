"""The sessions of a payment as rows: each is committed before its gateway is called, and says all that it is told.

All of it happens in transactions that hold the payment's row, so that one session is open at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.orm import Session

from payments_app.consultations.models import Consultation
from payments_app.db.base import dialect_insert
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import GatewayRefused, InvalidTransition, VersionConflict
from payments_app.gateways.base import Charge, SessionRequest, SessionStatus
from payments_app.gateways.capabilities import Capabilities
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.gateway_session import ENDED, LOST, OPENING, GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PAID, PaymentStatus

# An open session that is not its payment's first.
IS_NEWER = and_(GatewaySession.status == SessionStatus.OPEN.value, GatewaySession.number > 1)


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
    still_open = (GatewaySession.payment_id == payment_id, GatewaySession.status == SessionStatus.OPEN.value)
    return session.scalars(select(GatewaySession).where(*still_open)).one_or_none()


def find_newest_session(session: Session, payment_id: int) -> GatewaySession | None:
    """The last session that the gateway has named, whatever became of it."""
    named = (GatewaySession.payment_id == payment_id, GatewaySession.reference.is_not(None))
    return session.scalars(select(GatewaySession).where(*named).order_by(GatewaySession.id.desc()).limit(1)).first()


def find_newer_session(session: Session, payment: Payment) -> OpenSession | None:
    """The payment's open session, if it had another one before: money may come by either."""
    newer = (GatewaySession.payment_id == payment.id, IS_NEWER)
    with session.no_autoflush:  # it would flush half of an effect, and raise the version twice
        reference = session.scalars(select(GatewaySession.reference).where(*newer)).one_or_none()
    return None if reference is None else OpenSession(payment.charge, payment.gateway, reference)


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
    still_open = find_open_session(session, payment.id)
    if still_open is not None:
        return still_open, False
    if payment.status != PaymentStatus.PENDING:
        raise InvalidTransition(payment_status=payment.status)
    leased_until = at + timedelta(seconds=terms.lease_seconds)
    opening = (GatewaySession.payment_id == payment.id, GatewaySession.status == OPENING)
    row = session.scalars(select(GatewaySession).where(*opening)).one_or_none()
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
    row = _new_session(session, payment, capabilities, terms, at)
    row.leased_until = leased_until
    session.add(row)
    session.flush()
    return row, True


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


def name_session(session: Session, row: GatewaySession, reference: str, at: datetime) -> bool:
    """Write down how the gateway calls a session that was opened; False if another one has taken its place.

    Raises:
        GatewayRefused: the gateway has given the session of another payment (502).
    """
    same = (GatewaySession.gateway == row.gateway, GatewaySession.reference == reference, GatewaySession.id != row.id)
    named_before = session.scalars(select(GatewaySession).where(*same)).one_or_none()
    if named_before is not None:  # a webhook told of it before we could
        if named_before.payment_id != row.payment_id:
            raise GatewayRefused
        session.delete(named_before)
        session.flush()
        row.take_over(named_before, at)
    row.reference = reference
    if row.status == OPENING:
        row.leased_until = None
        other = find_open_session(session, row.payment_id)
        row.move_on(SessionStatus.OPEN if other is None else SessionStatus.CANCELLED, at)
    session.flush()
    return row.status not in ENDED


def store_session(session: Session, payment: Payment, reference: str, status: SessionStatus, *, at: datetime) -> None:
    """Keep a session of the payment that a gateway tells of, unless it is known already."""
    new = dialect_insert(session, GatewaySession).values(
        payment_id=payment.id,
        gateway=payment.gateway,
        reference=reference,
        status=status.value,
        created_at=at,
        updated_at=at,
    )
    session.execute(new.on_conflict_do_nothing())


def close_sessions(session: Session, payment_id: int, references: Sequence[str], at: datetime) -> None:
    """Write down that these have ended, and give up on one that is being opened: who opens it will find the payment so.

    Core: a session has no version to guard.
    """
    is_opening = GatewaySession.status == OPENING
    session.execute(
        update(GatewaySession)
        .where(GatewaySession.payment_id == payment_id, is_opening | GatewaySession.reference.in_(references))
        .values(status=case((is_opening, LOST), else_=SessionStatus.CANCELLED.value), updated_at=at)
    )


def _new_session(
    session: Session, payment: Payment, capabilities: Capabilities, terms: SessionTerms, at: datetime
) -> GatewaySession:
    highest = select(func.max(GatewaySession.number)).where(GatewaySession.payment_id == payment.id)
    described = select(Consultation.description).where(Consultation.id == payment.consultation_id)
    return GatewaySession(
        payment_id=payment.id,
        gateway=payment.gateway,
        status=OPENING,
        number=(session.scalars(highest).one() or 0) + 1,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        description=session.scalars(described).one() or terms.describe(payment.consultation_id),
        language=terms.language,
        return_url=terms.return_url,
        expires_at=_end_of(payment, capabilities, terms, at),
        created_at=at,
        updated_at=at,
    )


def _end_of(payment: Payment, capabilities: Capabilities, terms: SessionTerms, at: datetime) -> datetime | None:
    """As near to the payment's own end as the gateway allows, in whole seconds."""
    if capabilities.session_seconds is None:
        return None
    shortest, longest = (timedelta(seconds=seconds) for seconds in capabilities.session_seconds)
    wanted = min(terms.deadlines.end_of(payment, None), at + longest)
    return max(at + shortest, wanted).replace(microsecond=0)

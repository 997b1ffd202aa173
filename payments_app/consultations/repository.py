"""Consultations in the database. The booking system registers them, and their patients read them."""

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, exists, func, inspect, literal_column, or_, select, update
from sqlalchemy.orm import Session, joinedload

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import PaymentLink, Role, User
from payments_app.accounts.repository import by_email, find_or_add_patient, lock_patient, require_valid
from payments_app.consultations.models import Consultation
from payments_app.db.base import dialect_insert, table_of
from payments_app.db.row_waits import enter_queue
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import after_commit, read_transaction, write_transaction
from payments_app.errors import ConsultationHasPayments, ConsultationNotFound, Forbidden, ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.pagination import Page

log = get_logger(__name__)


CONSULTATIONS = table_of(Consultation)

# Cached list statements, at 6 KiB each. Clients use a few; the cache is for clients that ask for every page size.
CACHED_STATEMENTS = 64


class ActivePaymentRow(NamedTuple):
    """A consultation's active payment, in a list."""

    id: int
    status: str
    amount_minor: int
    version: int


# The columns that a list shows: all but the times at which the row was written, which take long to read.
_SHOWN = [column for column in CONSULTATIONS.c if column.name not in ("created_at", "updated_at")]
_WIDTH = len(_SHOWN)

# Its fields are the columns, which the type checker does not know.
_Columns: Any = namedtuple("_Columns", [*(column.name for column in _SHOWN), "active_payment"])  # type: ignore[misc]


class ConsultationRow(_Columns):
    """A consultation with its active payment, for display: it is not changed, so the session need not track it."""

    id: int
    status = Consultation.status

    @classmethod
    def of(cls, row: Sequence[Any]) -> "ConsultationRow":
        """A row of ``_page``: the columns, then those of the payment."""
        payment = None if row[_WIDTH] is None else ActivePaymentRow._make(row[_WIDTH:])
        made: ConsultationRow = cls._make((*row[:_WIDTH], payment))
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPatient:
    """A patient who is added if nobody has the e-mail address; otherwise name and language are ignored."""

    email: str
    name: str
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the booking system says of a consultation; exactly one of the three ways to name the patient is set.

    The fee in minor units. All that is None is so from then on, but for the reference, which stays.
    """

    patient_id: int | None = None
    patient_email: str | None = None
    patient: NewPatient | None = None
    fee_minor: int | None
    currency: str
    description: str | None = None
    starts_at: datetime | None = None
    reference: str | None = None


@read_transaction
def get(session: Session, consultation_id: int, *, caller: Caller) -> Consultation:
    """A consultation with its active payment.

    Raises:
        ConsultationNotFound: no such consultation (404).
        Forbidden: the consultation belongs to another patient (403).
    """
    with_payment = joinedload(Consultation.active_payment)
    return require_accessible(session.get(Consultation, consultation_id, options=[with_payment]), caller)


def require_accessible(consultation: Consultation | None, caller: Caller) -> Consultation:
    """The consultation itself, if there is one and the caller may see it.

    Raises:
        ConsultationNotFound: no such consultation (404).
        Forbidden: it belongs to another patient, or another system has registered it (403).
    """
    if consultation is None:
        raise ConsultationNotFound
    caller.require_access(
        ConsultationNotFound,
        patient_id=consultation.patient_id,
        consultation_id=consultation.id,
        registered_by=consultation.registered_by,
    )
    return consultation


@read_transaction
def list_page(
    session: Session, *, caller: Caller, after_id: int, per_page: int, reference: str | None = None
) -> Page[ConsultationRow]:
    """Consultations by ascending id: a patient's own, those that a booking system registered, or for an admin all.

    For a payer that of the link. With ``reference``, only the one that has it.
    """
    values: dict[str, Any] = {"after_id": after_id}
    if caller.consultation_id is not None:
        values["id"] = caller.consultation_id
    if caller.role == Role.BOOKING:
        values["registered_by"] = caller.user_id
    elif not caller.is_admin:
        values["patient_id"] = caller.user_id
    if reference is not None:
        values["reference"] = reference
    rows = _page(frozenset(values), per_page).rows(session, values)
    return Page.cut([ConsultationRow.of(row) for row in rows], per_page)


@lru_cache(CACHED_STATEMENTS)
def _page(names: frozenset[str], per_page: int) -> DirectStatement:
    """The statement of one list. Page size is a literal: PostgreSQL would plan a parameter for a tenth of the table."""
    query = select(*_SHOWN).where(CONSULTATIONS.c.id > bindparam("after_id", type_=CONSULTATIONS.c.id.type))
    for name in sorted(names - {"after_id"}):  # in one order, so that one list has one text
        query = query.where(CONSULTATIONS.c[name] == bindparam(name, type_=CONSULTATIONS.c[name].type))
    # The limit in a subquery, the join after it: if it joined first, PostgreSQL would read all payments up to the page.
    page = query.order_by(CONSULTATIONS.c.id).limit(literal_column(str(per_page + 1))).subquery()
    payment = inspect(Consultation).relationships["active_payment"].mapper.class_
    shown = [getattr(payment, name) for name in ActivePaymentRow._fields]
    joined = page.outerjoin(payment, and_(payment.consultation_id == page.c.id, payment.is_active))
    return DirectStatement(select(page, *shown).select_from(joined).order_by(page.c.id), planned_by_values=True)


@write_transaction
def put(
    session: Session, consultation_id: int, registration: Registration, *, caller: Caller
) -> tuple[Consultation, bool]:
    """Register or replace a consultation. The second value is True if it is new.

    It gets the currency of the settings, except while a payment is active: then it keeps its currency. Another patient
    ends its links.

    Raises:
        ValidationFailed: no patient has that id or e-mail address, or the e-mail address is staff's (422).
        Forbidden: another booking system has registered it (403).
        ConsultationClosed: the consultation is closed (409).
        ReferenceFixed: it has another reference (409).
        ReferenceTaken: another consultation has that reference (409).
        ConsultationHasPayments: the patient changes and a payment exists, or the fee changes and one is active (409).
        LockTimeout: the row stays locked, and enough requests of this process wait for it (409, retryable).
    """
    require_valid(session, caller)
    patient_id = _find_patient(session, registration)
    enter_queue(session, Consultation.__tablename__, consultation_id)
    now = clock.now()
    # Before the consultation is locked: whoever pays by a link locks the link first.
    ended_links = _end_links_of_others(session, consultation_id, patient_id, now)
    # The reference comes later: a conflict with another consultation's is none that this insert may pass over.
    new = dialect_insert(session, Consultation).values(
        id=consultation_id,
        patient_id=patient_id,
        fee_minor=registration.fee_minor,
        currency=registration.currency,
        registered_by=caller.user_id,
        created_at=now,
        updated_at=now,
    )
    is_new = session.execute(new.on_conflict_do_nothing().returning(Consultation.id)).first() is not None
    # The lock waits for the creation of payments, which takes a key share lock on the same row.
    consultation = session.get_one(Consultation, consultation_id, with_for_update=True)
    lock_patient(session, patient_id)
    _require_replaceable(session, consultation, caller)
    consultation.require_open()
    is_free = consultation.active_payment is None
    if consultation.fee_minor != registration.fee_minor and not is_free:
        raise ConsultationHasPayments
    # While a payment is active, the fee keeps the currency that is being paid.
    currency = registration.currency if is_free else consultation.currency
    # Another patient breaks the foreign key of existing payments: the database refuses it.
    consultation.patient_id, consultation.fee_minor, consultation.currency = (
        patient_id,
        registration.fee_minor,
        currency,
    )
    consultation.description, consultation.starts_at = registration.description, registration.starts_at
    if registration.reference is not None:
        consultation.name(registration.reference)
    if consultation.registered_by is None:  # registered by an earlier release, which did not keep the user
        consultation.registered_by = caller.user_id
    if session.is_modified(consultation):
        consultation.updated_at = now
        session.flush()
    session.refresh(consultation, ["active_payment"])
    if ended_links:
        after_commit(consultation, lambda: _record_ended(ended_links, consultation_id, caller))
    return consultation, is_new


def _require_replaceable(session: Session, consultation: Consultation, caller: Caller) -> None:
    """Refuse to replace, and so to show, what another booking system has registered. What staff registered it may."""
    if caller.role != Role.BOOKING or consultation.registered_by in (None, caller.user_id):
        return
    if session.scalar(select(User.role).where(User.id == consultation.registered_by)) == Role.BOOKING:
        raise Forbidden


def _end_links_of_others(session: Session, consultation_id: int, patient_id: int, at: datetime) -> Sequence[int]:
    """Revoke the links of a consultation that gets another patient, and return their ids.

    Whoever has one would otherwise pay, and read, as that patient.
    """
    is_anothers = exists().where(Consultation.id == consultation_id, Consultation.patient_id != patient_id)
    theirs = (PaymentLink.consultation_id == consultation_id, PaymentLink.revoked_at.is_(None), is_anothers)
    ended = update(PaymentLink).where(*theirs).values(revoked_at=at).returning(PaymentLink.id)
    return session.scalars(ended, execution_options={"synchronize_session": False}).all()


def _record_ended(links: Sequence[int], consultation_id: int, caller: Caller) -> None:
    metrics.PAYMENT_LINKS.labels("revoked").inc(len(links))
    for link_id in links:
        log.info("Payment link: revoked", link_id=link_id, consultation_id=consultation_id, actor=caller.actor)


@read_transaction
def count_unpaid_in_other_currency(session: Session, currency: str) -> int:
    """The number of unpaid consultations in another currency, for which no new payment can be created."""
    is_unpaid = or_(~Consultation.active_payment.has(), Consultation.active_payment.has(status="pending"))
    unpaid = select(func.count()).select_from(Consultation).where(is_unpaid)
    is_open = Consultation.closed_at.is_(None)
    return session.scalars(unpaid.where(Consultation.currency != currency, is_open)).one()


def lock_consultation(session: Session, consultation_id: int) -> None:
    """Lock the row, if it exists, until the transaction ends. On SQLite the write lock does that already."""
    enter_queue(session, Consultation.__tablename__, consultation_id)
    session.execute(select(Consultation.id).where(Consultation.id == consultation_id).with_for_update())


def get_for_update(session: Session, consultation_id: int, *, caller: Caller) -> Consultation:
    """A consultation, locked until the end of the transaction, for a caller who may close it or give out links to it.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another booking system has registered it (403).
    """
    require_valid(session, caller)
    enter_queue(session, Consultation.__tablename__, consultation_id)
    consultation = session.get(Consultation, consultation_id, with_for_update=True)
    return _require_changeable(consultation, caller)


def get_changeable(session: Session, consultation_id: int, *, caller: Caller) -> Consultation:
    """``get_for_update`` without the lock."""
    require_valid(session, caller)
    return _require_changeable(session.get(Consultation, consultation_id), caller)


def _require_changeable(consultation: Consultation | None, caller: Caller) -> Consultation:
    # Of what an earlier release registered it is not known who did: any booking system may change that.
    if consultation is not None and consultation.registered_by is None and caller.role == Role.BOOKING:
        return consultation
    return require_accessible(consultation, caller)


def is_closed(session: Session, consultation_id: int) -> bool:
    """Whether nobody can pay it any more."""
    closed = select(Consultation.closed_at.is_not(None)).where(Consultation.id == consultation_id)
    return session.scalars(closed).one()


def _find_patient(session: Session, registration: Registration) -> int:
    if registration.patient is not None:
        wanted_patient = registration.patient
        found = find_or_add_patient(
            session, email=wanted_patient.email, name=wanted_patient.name, language=wanted_patient.language
        )
        if found is None:
            raise ValidationFailed({"patient.email": [N_("Belongs to a user who is not a patient.")]})
        return found.id
    if registration.patient_email is not None:
        field, query = "patient_email", by_email(registration.patient_email)
    else:
        field, query = "patient_id", select(User).where(User.id == registration.patient_id)
    patient = session.scalar(query.where(User.role == Role.PATIENT, User.erased_at.is_(None)))
    if patient is None:
        raise ValidationFailed({field: [N_("No such patient.")]})
    return patient.id

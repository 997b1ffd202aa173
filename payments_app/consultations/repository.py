"""Consultations in the database. The booking system registers them, and their patients read them."""

from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased, joinedload

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, User
from payments_app.accounts.repository import by_email, require_valid
from payments_app.consultations.models import Consultation
from payments_app.db.base import dialect_insert
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import ConsultationHasPayments, ConsultationNotFound, ValidationFailed
from payments_app.i18n.messages import N_
from payments_app.pagination import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A consultation as the booking system registers it. Exactly one of patient id and patient e-mail is set."""

    patient_id: int | None
    patient_email: str | None
    fee_minor: int | None
    currency: str


@read_transaction
def get(session: Session, consultation_id: int, *, caller: Caller) -> Consultation:
    """A consultation with its active payment.

    Raises:
        ConsultationNotFound: no such consultation (404).
        Forbidden: the consultation belongs to another patient (403).
    """
    with_payment = joinedload(Consultation.active_payment)
    consultation = session.get(Consultation, consultation_id, options=[with_payment])
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
def list_page(session: Session, *, caller: Caller, after_id: int, per_page: int) -> Page[Consultation]:
    """The caller's consultations by ascending id; all consultations if the caller is an admin."""
    query = select(Consultation).where(Consultation.id > after_id)
    if not caller.is_admin:
        query = query.where(Consultation.patient_id == caller.user_id)
    # The limit in a subquery, the join after it: if it joined first, PostgreSQL would read all payments up to the page.
    page = aliased(Consultation, query.order_by(Consultation.id).limit(per_page + 1).subquery())
    with_payments = select(page).options(joinedload(page.active_payment)).order_by(page.id)
    return Page.cut(session.scalars(with_payments).all(), per_page)


@write_transaction
def put(
    session: Session, consultation_id: int, registration: Registration, *, caller: Caller
) -> tuple[Consultation, bool]:
    """Register or replace a consultation. The second value is True if it is new.

    It gets the currency of the settings, except while a payment is active: then it keeps its currency.

    Raises:
        ValidationFailed: no patient has that id or e-mail address (422).
        ConsultationHasPayments: the patient changes and a payment exists, or the fee changes and one is active (409).
    """
    require_valid(session, caller)
    patient_id = _find_patient(session, registration)
    now = clock.now()
    new = dialect_insert(session, Consultation).values(
        id=consultation_id,
        patient_id=patient_id,
        fee_minor=registration.fee_minor,
        currency=registration.currency,
        created_at=now,
        updated_at=now,
    )
    is_new = session.execute(new.on_conflict_do_nothing().returning(Consultation.id)).first() is not None
    # The lock waits for the creation of payments, which takes a key share lock on the same row.
    consultation = session.get_one(Consultation, consultation_id, with_for_update=True)
    is_free = consultation.active_payment is None
    if consultation.fee_minor != registration.fee_minor and not is_free:
        raise ConsultationHasPayments
    # While a payment is active, the fee keeps the currency that is being paid.
    currency = registration.currency if is_free else consultation.currency
    new_values = (patient_id, registration.fee_minor, currency)
    if (consultation.patient_id, consultation.fee_minor, consultation.currency) != new_values:
        # Another patient breaks the foreign key of existing payments: the database refuses it.
        consultation.patient_id, consultation.fee_minor, consultation.currency = new_values
        consultation.updated_at = now
        session.flush()
    session.refresh(consultation, ["active_payment"])
    return consultation, is_new


@read_transaction
def count_unpaid_in_other_currency(session: Session, currency: str) -> int:
    """The number of unpaid consultations in another currency, for which no new payment can be created."""
    is_unpaid = or_(~Consultation.active_payment.has(), Consultation.active_payment.has(status="pending"))
    unpaid = select(func.count()).select_from(Consultation).where(is_unpaid)
    return session.scalars(unpaid.where(Consultation.currency != currency)).one()


def lock_consultation(session: Session, consultation_id: int) -> None:
    """Lock the row, if it exists, until the transaction ends. On SQLite the write lock does that already."""
    session.execute(select(Consultation.id).where(Consultation.id == consultation_id).with_for_update())


def _find_patient(session: Session, registration: Registration) -> int:
    if registration.patient_email is not None:
        field, query = "patient_email", by_email(registration.patient_email)
    else:
        field, query = "patient_id", select(User).where(User.id == registration.patient_id)
    patient = session.scalar(query.where(User.role == Role.PATIENT))
    if patient is None:
        raise ValidationFailed({field: [N_("No such patient.")]})
    return patient.id

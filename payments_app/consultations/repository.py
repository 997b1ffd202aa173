"""Consultations: registered by the booking system, read by their patients."""

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
    """What the booking system says of a consultation; exactly one of the two ways to name the patient is set."""

    patient_id: int | None
    patient_email: str | None
    fee_minor: int | None
    currency: str


@read_transaction
def get(session: Session, consultation_id: int, *, caller: Caller) -> Consultation:
    """A consultation with its active payment.

    Raises:
        ConsultationNotFound: no such consultation (404).
        Forbidden: another patient's (403).
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
    """The caller's consultations, in the order of their ids: for an admin everybody's, for a payer their link's."""
    wanted = select(Consultation).where(Consultation.id > after_id)
    if caller.consultation_id is not None:
        wanted = wanted.where(Consultation.id == caller.consultation_id)
    if not caller.is_admin:
        wanted = wanted.where(Consultation.patient_id == caller.user_id)
    # The limit in a subquery, the join after: joined first, PostgreSQL reads all payments up to the page.
    shown = aliased(Consultation, wanted.order_by(Consultation.id).limit(per_page + 1).subquery())
    with_payments = select(shown).options(joinedload(shown.active_payment)).order_by(shown.id)
    return Page.cut(session.scalars(with_payments).all(), per_page)


@write_transaction
def put(
    session: Session, consultation_id: int, registration: Registration, *, caller: Caller
) -> tuple[Consultation, bool]:
    """Register or replace a consultation; the second value tells whether it is new.

    Its currency is the one that the settings had when it was last registered without an active payment.

    Raises:
        ValidationFailed: no patient has that id or e-mail address (422).
        ConsultationHasPayments: another patient once any payment exists, or another fee while one is active (409).
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
    # Locked against the creation of payments, which takes a key share lock on the same row.
    consultation = session.get_one(Consultation, consultation_id, with_for_update=True)
    is_free = consultation.active_payment is None
    if consultation.fee_minor != registration.fee_minor and not is_free:
        raise ConsultationHasPayments
    # While a payment is active, the figure goes on meaning the money that is being paid.
    currency = registration.currency if is_free else consultation.currency
    wanted = (patient_id, registration.fee_minor, currency)
    if (consultation.patient_id, consultation.fee_minor, consultation.currency) != wanted:
        # Another patient while there are payments breaks their foreign key: the database refuses it.
        consultation.patient_id, consultation.fee_minor, consultation.currency = wanted
        consultation.updated_at = now
        session.flush()
    session.refresh(consultation, ["active_payment"])
    return consultation, is_new


@read_transaction
def count_unpaid_in_other_currency(session: Session, currency: str) -> int:
    """How many consultations that are not paid yet are registered in another currency, and so take no new payment."""
    is_unpaid = or_(~Consultation.active_payment.has(), Consultation.active_payment.has(status="pending"))
    unpaid = select(func.count()).select_from(Consultation).where(is_unpaid)
    return session.scalars(unpaid.where(Consultation.currency != currency)).one()


def lock_consultation(session: Session, consultation_id: int) -> None:
    """Lock the row, where it exists, until the end of the transaction; on SQLite the writer's lock does that."""
    session.execute(select(Consultation.id).where(Consultation.id == consultation_id).with_for_update())


def _find_patient(session: Session, registration: Registration) -> int:
    if registration.patient_email is not None:
        field, wanted = "patient_email", by_email(registration.patient_email)
    else:
        field, wanted = "patient_id", select(User).where(User.id == registration.patient_id)
    patient = session.scalar(wanted.where(User.role == Role.PATIENT))
    if patient is None:
        raise ValidationFailed({field: [N_("No such patient.")]})
    return patient.id

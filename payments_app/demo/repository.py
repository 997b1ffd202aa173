"""Inserts the demo's users and consultations, and finds one to pay."""

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.models import Role, User
from payments_app.accounts.repository import NewUser, by_email, insert_user
from payments_app.consultations.models import Consultation
from payments_app.db.base import dialect_insert
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.payments.models.payment import Payment


@write_transaction
def add_user(session: Session, *, email: str, name: str, role: Role, password_hash: str) -> int:
    """Add a user unless the e-mail address exists; returns the user's id in both cases."""
    insert_user(session, NewUser(email=email, name=name, role=role, password_hash=password_hash))
    return session.scalars(by_email(email)).one().id


@write_transaction
def add_consultations(session: Session, *, patient_id: int, first: int, last: int, currency: str) -> None:
    """Add the missing consultations from ``first`` to ``last``. The database generates the rows: none is sent to it."""
    numbers = select(literal(first).label("id")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.id + 1).where(numbers.c.id < last))
    now = literal(clock.now(), Consultation.created_at.type)
    # Without a WHERE, SQLite parses ON CONFLICT as the ON of a join (sqlite.org/lang_upsert.html, 2.2).
    rows = select(numbers.c.id, literal(patient_id), literal(currency), now, now).where(numbers.c.id >= first)
    columns = ["id", "patient_id", "currency", "created_at", "updated_at"]
    session.execute(dialect_insert(session, Consultation).from_select(columns, rows).on_conflict_do_nothing())


@read_transaction
def find_unpaid(session: Session, email: str) -> int | None:
    """The last of the patient's open consultations that has no active payment; None if there is none."""
    active = select(Payment.id).where(Payment.consultation_id == Consultation.id, Payment.is_active)
    unpaid = select(Consultation.id).join(User, User.id == Consultation.patient_id).where(User.email == email)
    unpaid = unpaid.where(Consultation.closed_at.is_(None), ~active.exists())
    return session.scalars(unpaid.order_by(Consultation.id.desc()).limit(1)).first()

"""The rows of a new payment, and the SQL that inserts all of them or none."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Executable,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

from payments_app import money
from payments_app.accounts.models import PaymentLink, User
from payments_app.consultations.models import Consultation
from payments_app.db.base import table_of
from payments_app.db.statement import DirectStatement
from payments_app.gateways.registry import PaymentMethod
from payments_app.idempotency.models import IdempotencyKey
from payments_app.invoices.models import Invoice, InvoiceStatus, TaxBasis, TaxRecord, invoice_number
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.payment import ACTIVE_PREDICATE, Payment
from payments_app.payments.models.status import PaymentStatus

PAYMENTS, TAX_RECORDS, INVOICES, EVENTS, KEYS = map(
    table_of, (Payment, TaxRecord, Invoice, PaymentEvent, IdempotencyKey)
)

Row = dict[str, Any]

# The parameter for each column of each table. A create names 59 of them, so they are not formatted each time.
PARAMETERS = {
    table: {column.name: f"{table.name}__{column.name}" for column in table.columns}
    for table in (PAYMENTS, TAX_RECORDS, INVOICES, EVENTS, KEYS)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """The payment that a patient requests; amounts in minor units, the tax rate in basis points."""

    consultation_id: int
    amount_minor: int
    currency: str
    method: PaymentMethod
    tax_rate_basis_points: int
    tax_basis: str


def _payment_row(new: NewPayment, *, payment_id: int, user_id: int, at: datetime) -> Row:
    return {
        "id": payment_id,
        "user_id": user_id,
        "consultation_id": new.consultation_id,
        "amount_minor": new.amount_minor,
        "currency": new.currency,
        "payment_method": new.method.code,
        "gateway": new.method.gateway,
        "status": PaymentStatus.PENDING.value,
        "transaction_id": None,
        "normalized_reference": None,
        "receipt_url": None,
        "received_minor": 0,
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
        "needs_review": False,
        "review_held": False,
        "is_disputed": False,
        "review_of_dispute": False,
        "version": 0,
        "created_at": at,
        "updated_at": at,
        "completed_at": None,
        "deleted_at": None,
    }


def _invoice_row(payment: Row, *, invoice_id: int) -> Row:
    return {
        "id": invoice_id,
        "payment_id": payment["id"],
        "invoice_number": invoice_number(payment["created_at"], payment["id"]),
        "amount_minor": payment["amount_minor"],
        "currency": payment["currency"],
        "status": InvoiceStatus.PENDING.value,
        "issued_at": payment["created_at"],
        "paid_at": None,
    }


def _tax_row(payment: Row, *, rate_basis_points: int, basis: str) -> Row:
    amount_minor = payment["amount_minor"]
    if basis == TaxBasis.INCLUDED:
        tax_minor = money.included_tax_minor(amount_minor, rate_basis_points)
        taxable_minor = amount_minor - tax_minor
    else:
        tax_minor, taxable_minor = money.tax_minor(amount_minor, rate_basis_points), amount_minor
    return {
        "payment_id": payment["id"],
        "tax_type": "VAT",
        "tax_rate_basis_points": rate_basis_points,
        "tax_basis": basis,
        "taxable_amount_minor": taxable_minor,
        "amount_minor": tax_minor,
        "status": "calculated",
    }


def _event_row(payment: Row, context: AuditContext) -> Row:
    return {
        "payment_id": payment["id"],
        "event": "payment.created",
        "from_status": None,
        "to_status": payment["status"],
        "version": payment["version"],
        "actor": context.actor,
        "request_id": context.request_id,
        "reference": None,
        "created_at": context.at,
    }


@dataclass(frozen=True, slots=True)
class Statements:
    """The inserts: as one statement for PostgreSQL, and one by one for SQLite."""

    at_once: DirectStatement
    in_turn: list[Executable]


def _one_statement(*, by_link: bool) -> CompoundSelect[Any]:
    """All inserts as one statement: each one after the first selects from the payment's RETURNING.

    If the key is known already, nothing is inserted. That saves work, and does not decide: two requests with one key at
    the same moment do not see each other's key, and the constraint stops the second.
    """
    known = _known_response(by_link=by_link).cte("known")
    is_new = ~exists().select_from(known)
    payment = _payment_insert(postgresql.insert(PAYMENTS), is_new, by_link=by_link).cte("payment")
    inserts = {
        table: insert(table).from_select(_columns(table), _values(table).select_from(payment))
        for table in (TAX_RECORDS, INVOICES, EVENTS, KEYS)
    }
    made = inserts.pop(KEYS).returning(KEYS.c.payment_id).cte("made")
    found = union_all(
        select(made.c.payment_id, cast(null(), Integer), cast(null(), Text)),
        select(known.c.payment_id, known.c.response_status, known.c.response_body),
    )
    return found.add_cte(*(inserted.cte(f"inserted_{table.name}") for table, inserted in inserts.items()))


def _known_response(*, by_link: bool) -> Select[int, int, str | None]:
    """The payment and the response stored for the key and the same request, if the caller's user is unchanged.

    There is no condition on ``response_body`` here: it is the predicate of an index, and PostgreSQL would use that
    index to scan every key that still has its response.
    """
    response = select(KEYS.c.payment_id, KEYS.c.response_status, KEYS.c.response_body)
    response = response.join_from(KEYS, User, User.id == KEYS.c.user_id)
    if by_link:
        response = response.join(PaymentLink, PaymentLink.consultation_id == _value(PAYMENTS, "consultation_id"))
    return response.where(
        KEYS.c.user_id == _value(KEYS, "user_id"),
        KEYS.c.key == _value(KEYS, "key"),
        KEYS.c.request_hash == _value(KEYS, "request_hash"),
        *_caller_is_unchanged(by_link=by_link),
    )


def _caller_is_unchanged(*, by_link: bool) -> tuple[ColumnElement[bool], ...]:
    user = (
        User.disabled_at.is_(None),
        User.role == bindparam("caller_role", type_=User.role.type),
        User.token_version == bindparam("caller_token_version", type_=User.token_version.type),
    )
    if not by_link:
        return user
    return (
        *user,
        PaymentLink.id == bindparam("caller_link_id", type_=PaymentLink.id.type),
        PaymentLink.revoked_at.is_(None),
        PaymentLink.expires_at > bindparam("caller_at", type_=PaymentLink.expires_at.type),
    )


def _statements_in_turn(*, by_link: bool) -> list[Executable]:
    """The same inserts one by one, for SQLite, where no other connection writes meanwhile."""
    others = (
        insert(table).from_select(_columns(table), _values(table)) for table in (TAX_RECORDS, INVOICES, EVENTS, KEYS)
    )
    payment = _payment_insert(sqlite.insert(PAYMENTS), by_link=by_link)
    return [payment, *(statement.returning(literal(1)) for statement in others)]


def _payment_insert(insert_payment: Any, *conditions: ColumnElement[bool], by_link: bool) -> Any:
    """Insert the payment if its consultation is the caller's, has this fee and currency, and has no active payment."""
    payable = _values(PAYMENTS).join_from(Consultation, User, User.id == Consultation.patient_id)
    if by_link:
        payable = payable.join(PaymentLink, PaymentLink.consultation_id == Consultation.id)
    payable = (
        payable.where(
            Consultation.id == _value(PAYMENTS, "consultation_id"),
            Consultation.patient_id == _value(PAYMENTS, "user_id"),
            Consultation.closed_at.is_(None),
            Consultation.currency == _value(PAYMENTS, "currency"),
            or_(Consultation.fee_minor.is_(None), Consultation.fee_minor == _value(PAYMENTS, "amount_minor")),
            *_caller_is_unchanged(by_link=by_link),
            *conditions,
        )
        # Waits until a concurrent change of the fee, or closing, has committed; inserts only if the payment is still
        # possible.
        .with_for_update(key_share=True, read=True, of=Consultation)
    )
    if by_link:
        # Waits also for a concurrent end of the link or of its patient; a later one waits for this transaction.
        payable = payable.with_for_update(read=True, of=(Consultation, PaymentLink, User))
    return (
        insert_payment.from_select(_columns(PAYMENTS), payable)
        .on_conflict_do_nothing(index_elements=["consultation_id"], index_where=ACTIVE_PREDICATE)
        .returning(PAYMENTS.c.id)
    )


# What the event of a new payment leaves null: fewer values to send with each create.
_LATER = {"refund_id", "refund_amount_minor", "dispute_id", "position", "consultation_reference"}


def _columns(table: Table) -> list[str]:
    """The columns that a row sets: all except an id that the database assigns, and what stays null."""
    return [
        column.name
        for column in table.columns
        if column is not table.autoincrement_column and not (table is EVENTS and column.name in _LATER)
    ]


def _values(table: Table) -> Select[Any]:
    return select(*(_value(table, name).label(name) for name in _columns(table)))


def _value(table: Table, column: str) -> BindParameter[Any]:
    return bindparam(PARAMETERS[table][column], type_=table.c[column].type)


STATEMENTS, STATEMENTS_OF_PAYER = (
    Statements(DirectStatement(_one_statement(by_link=by_link)), _statements_in_turn(by_link=by_link))
    for by_link in (False, True)
)


class _CurrentState(NamedTuple):
    """The rows that can prevent a payment, read together; None for rows that do not exist."""

    user_id: int | None
    role: str
    token_version: int
    disabled_at: datetime | None
    patient_id: int | None
    fee_minor: int | None
    currency: str
    closed_at: datetime | None
    key: str | None
    payment_id: int | None
    status: str


def _current_state() -> Select[Any]:
    """The user, the consultation, the key and the active payment in one row; nulls for those that do not exist."""
    one_row = select(literal_column("1").label("one")).subquery()
    consultation_id = bindparam("consultation_id", type_=Consultation.id.type)
    # The index's own predicate: if the statuses were parameters, PostgreSQL could not know that the index fits.
    of_consultation = select(PAYMENTS.c.id, PAYMENTS.c.status).where(PAYMENTS.c.consultation_id == consultation_id)
    active = of_consultation.where(ACTIVE_PREDICATE).subquery("active")
    user_id = bindparam("user_id", type_=User.id.type)
    columns = {
        "user_id": User.id,
        "role": User.role,
        "token_version": User.token_version,
        "disabled_at": User.disabled_at,
        "patient_id": Consultation.patient_id,
        "fee_minor": Consultation.fee_minor,
        "currency": Consultation.currency,
        "closed_at": Consultation.closed_at,
        "key": IdempotencyKey.key,
        "payment_id": active.c.id,
        "status": active.c.status,
    }
    query: Select[Any] = select(*(columns[name].label(name) for name in _CurrentState._fields))  # type: ignore[assignment]  # untyped for so many columns
    return (
        query.select_from(one_row)
        .outerjoin(User, User.id == user_id)
        .outerjoin(Consultation, Consultation.id == consultation_id)
        .outerjoin(IdempotencyKey, and_(IdempotencyKey.user_id == user_id, IdempotencyKey.key == bindparam("key")))
        .outerjoin(active, true())
    )


_CURRENT_STATE = DirectStatement(_current_state())

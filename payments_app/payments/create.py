"""Making a payment: five rows that appear together or not at all.

The rows are described once, in ``Rows``. PostgreSQL gets them as one statement of Core inserts chained by CTEs,
SQLite, which has no inserting CTEs, the same inserts in turn under its write lock. In both, the payment is inserted
only where its consultation is the caller's and may be paid, and ON CONFLICT DO NOTHING lets the partial unique index
decide; the key's insert has no such clause, so that a key used elsewhere undoes everything.

When no row comes back, one read tells why. Nothing is looked up beforehand: that would be a race.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Select, Table, and_, bindparam, insert, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app import money
from payments_app.accounts.callers import Caller
from payments_app.accounts.models import User
from payments_app.consultations.models import Consultation
from payments_app.database import KeyTaken, LostRace, broken_constraint, table_of, write_transaction
from payments_app.errors import ActivePaymentExists, ConsultationNotFound, Forbidden, NotAuthenticated, ValidationFailed
from payments_app.gateways.registry import PaymentMethod
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.keyed import Answer, KeyedRequest
from payments_app.idempotency.models import IdempotencyKey
from payments_app.ids import next_id
from payments_app.invoices.models import Invoice, InvoiceStatus, TaxRecord, invoice_number
from payments_app.payments.models import ACTIVE_PREDICATE, Deed, Payment, PaymentEvent, PaymentStatus

PAYMENTS = table_of(Payment)

Row = dict[str, Any]
# What the doors make of a new payment and its invoice.
Render = Callable[[Row, Row], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """What a patient asks for; amounts in minor units, the rate in basis points."""

    consultation_id: int
    amount_minor: int
    currency: str
    method: PaymentMethod
    tax_rate_basis_points: int


def create(new: NewPayment, *, caller: Caller, keyed: KeyedRequest, deed: Deed, render: Render) -> Answer:
    """Make a pending payment with its invoice, tax record, event and key; or give the answer that the key gave before.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another patient's consultation (403).
        IdempotencyKeyReused: the key was used for another request (422).
        ActivePaymentExists: the consultation has an active payment (409).
        ValidationFailed: the amount is not the consultation's fee (422).
    """
    payment = _payment_row(new, payment_id=next_id(Payment.__tablename__), user_id=caller.user_id, at=deed.at)
    invoice = _invoice_row(payment, invoice_id=next_id(Invoice.__tablename__))
    answer = render(payment, invoice)
    rows = [
        (PAYMENTS, payment),
        (table_of(TaxRecord), _tax_row(payment, rate_basis_points=new.tax_rate_basis_points)),
        (table_of(Invoice), invoice),
        (table_of(PaymentEvent), _event_row(payment, deed)),
        (table_of(IdempotencyKey), keyed.row(answer, payment_id=payment["id"], at=deed.at)),
    ]
    return _insert_or_explain(rows, caller, keyed, answer)


def _payment_row(new: NewPayment, *, payment_id: int, user_id: int, at: datetime) -> Row:
    return {
        "id": payment_id,
        "user_id": user_id,
        "consultation_id": new.consultation_id,
        "amount_minor": new.amount_minor,
        "currency": new.currency,
        "payment_method": new.method.code,
        "gateway": new.method.gateway.value,
        "status": PaymentStatus.PENDING.value,
        "transaction_id": None,
        "receipt_url": None,
        "received_minor": 0,
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
        "needs_review": False,
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


def _tax_row(payment: Row, *, rate_basis_points: int) -> Row:
    return {
        "payment_id": payment["id"],
        "tax_type": "VAT",
        "tax_rate_basis_points": rate_basis_points,
        "taxable_amount_minor": payment["amount_minor"],
        "amount_minor": money.tax_minor(payment["amount_minor"], rate_basis_points),
        "status": "calculated",
    }


def _event_row(payment: Row, deed: Deed) -> Row:
    return {
        "payment_id": payment["id"],
        "event": "payment.created",
        "from_status": None,
        "to_status": payment["status"],
        "version": payment["version"],
        "actor": deed.actor,
        "request_id": deed.request_id,
        "created_at": deed.at,
    }


@write_transaction
def _insert_or_explain(
    session: Session, rows: list[tuple[Table, Row]], caller: Caller, keyed: KeyedRequest, answer: Answer
) -> Answer:
    try:
        if _insert(session, rows, caller):
            return answer
    except IntegrityError as error:
        if not isinstance(broken_constraint(error), KeyTaken):
            raise
        session.rollback()
    # The one who was first has committed by now, and the next statement sees what they did.
    replayed = _explain(session, rows[0][1], caller, keyed)
    if replayed is None:
        raise LostRace  # what stood in the way is gone again: one more attempt
    return replayed


def _insert(session: Session, rows: list[tuple[Table, Row]], caller: Caller) -> bool:
    """Insert the five rows; False, and nothing inserted, where the payment may not be made."""
    shape = tuple((table, tuple(row)) for table, row in rows)
    values = {f"{table.name}__{column}": value for table, row in rows for column, value in row.items()}
    values["caller_token_version"] = caller.token_version
    if session.get_bind().dialect.name == "postgresql":
        return session.execute(_one_statement(shape), values).first() is not None
    return all(session.execute(statement, values).first() is not None for statement in _statements_in_turn(shape))


Shape = tuple[tuple[Table, tuple[str, ...]], ...]


@lru_cache(maxsize=1)
def _one_statement(shape: Shape) -> Executable:
    """All inserts as one statement: each but the first selects from the payment's RETURNING."""
    (_, payment_columns), *others, (keys, key_columns) = shape
    payment = _payment_insert(postgresql.insert(PAYMENTS), payment_columns).cte("payment")
    last = insert(keys).from_select(key_columns, _values(keys, key_columns).select_from(payment))
    for table, columns in others:
        inserted = insert(table).from_select(columns, _values(table, columns).select_from(payment))
        last = last.add_cte(inserted.cte(f"inserted_{table.name}"))
    return last.returning(keys.c.payment_id)


@lru_cache(maxsize=1)
def _statements_in_turn(shape: Shape) -> list[Executable]:
    """The same inserts one by one, for a database where nobody else writes meanwhile."""
    (_, payment_columns), *others = shape
    payment = _payment_insert(sqlite.insert(PAYMENTS), payment_columns)
    rest = (insert(table).from_select(columns, _values(table, columns)) for table, columns in others)
    return [payment, *(statement.returning(literal(1)) for statement in rest)]


def _payment_insert(insert_payment: Any, columns: tuple[str, ...]) -> Any:
    """Insert the payment if its consultation is the caller's, may be paid at this amount, and has no active one."""
    payable = (
        _values(PAYMENTS, columns)
        .join_from(Consultation, User, User.id == Consultation.patient_id)
        .where(
            Consultation.id == bindparam("payments__consultation_id", type_=Consultation.id.type),
            Consultation.patient_id == bindparam("payments__user_id", type_=User.id.type),
            or_(
                Consultation.fee_minor.is_(None),
                Consultation.fee_minor == bindparam("payments__amount_minor", type_=Payment.amount_minor.type),
            ),
            User.disabled_at.is_(None),
            User.token_version == bindparam("caller_token_version", type_=User.token_version.type),
        )
        # Not before a change of the fee has committed, and then only if the amount still fits.
        .with_for_update(key_share=True, read=True, of=Consultation)
    )
    return (
        insert_payment.from_select(columns, payable)
        .on_conflict_do_nothing(index_elements=["consultation_id"], index_where=ACTIVE_PREDICATE)
        .returning(PAYMENTS.c.id)
    )


def _values(table: Table, columns: tuple[str, ...]) -> Select[Any]:
    return select(*(bindparam(f"{table.name}__{name}", type_=table.c[name].type).label(name) for name in columns))


def _explain(session: Session, payment: Row, caller: Caller, keyed: KeyedRequest) -> Answer | None:
    """Why no payment was made, judged in the order of the contract; the first answer, where the key has one.

    One statement, so that all it sees is of one moment. None where nothing stands in the way any more.
    """
    one_row = select(literal(1).label("one")).subquery()
    why = (
        select(User, Consultation, IdempotencyKey, Payment)
        .select_from(one_row)
        .outerjoin(User, User.id == caller.user_id)
        .outerjoin(Consultation, Consultation.id == payment["consultation_id"])
        .outerjoin(IdempotencyKey, and_(IdempotencyKey.user_id == keyed.user_id, IdempotencyKey.key == keyed.key))
        .outerjoin(Payment, and_(Payment.consultation_id == payment["consultation_id"], Payment.is_active))
    )
    user, consultation, key, active = session.execute(why).one()
    if not caller.is_still(user):
        raise NotAuthenticated
    if consultation is None:
        raise ConsultationNotFound
    if consultation.patient_id != caller.user_id:
        raise Forbidden
    if key is not None:
        return idempotency.replay(key, keyed)
    if active is not None:
        raise ActivePaymentExists(payment_id=active.id, payment_status=active.status)
    if consultation.fee_minor not in (None, payment["amount_minor"]):
        raise ValidationFailed({"amount": [f"The fee is {money.to_text(consultation.fee_minor)}."]})
    return None

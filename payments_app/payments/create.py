"""Making a payment: five rows that appear together or not at all.

The rows are described once, by the functions named after them. PostgreSQL gets them as one statement of Core inserts
chained by CTEs, SQLite, which has no inserting CTEs, the same inserts in turn under its write lock. In both, the
payment is inserted only where its consultation is the caller's and may be paid, and ON CONFLICT DO NOTHING lets the
partial unique index decide; the key's insert has no such clause, so that a key used elsewhere undoes everything.

When no row comes back, one read tells why. Nothing is looked up beforehand: that would be a race. (On PostgreSQL the
statement itself asks whether the key is known, which saves the work of most retries, and decides nothing.)
"""

from collections.abc import Callable

from sqlalchemy import (
    Table,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payments_app import money
from payments_app.accounts.caller import Caller
from payments_app.consultations.repository import lock_consultation
from payments_app.db.errors import KeyTaken, LostRace, broken_constraint
from payments_app.db.ids import next_id
from payments_app.db.transaction import write_statement, write_transaction
from payments_app.errors import (
    ActivePaymentExists,
    ConsultationCurrency,
    ConsultationNotFound,
    Forbidden,
    ValidationFailed,
)
from payments_app.i18n.messages import Message
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import Answer, KeyedRequest
from payments_app.idempotency.service import once, tell_duplicate
from payments_app.locking import locks
from payments_app.observability import metrics
from payments_app.observability.logging import event_log
from payments_app.payments.create_statement import (
    _ONE_STATEMENT,
    _STATEMENTS_IN_TURN,
    _WHY,
    EVENTS,
    INVOICES,
    KEYS,
    PAYMENTS,
    TAX_RECORDS,
    NewPayment,
    Row,
    _event_row,
    _invoice_row,
    _payment_row,
    _tax_row,
    _Why,
)
from payments_app.payments.models.event import Deed

log = event_log(__name__)
# What the doors make of a new payment and its invoice.
Render = Callable[[Row, Row], Answer]


def create(new: NewPayment, *, caller: Caller, keyed: KeyedRequest, deed: Deed, render: Render) -> Answer:
    """Make a pending payment with its invoice, tax record, event and key; or give the answer that the key gave before.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        ConsultationNotFound: no such consultation (404).
        Forbidden: another patient's consultation (403).
        IdempotencyKeyReused: the key was used for another request (422).
        ActivePaymentExists: the consultation has an active payment (409).
        ConsultationCurrency: the consultation was registered in another currency (409).
        ValidationFailed: the amount is not the consultation's fee (422).
        LockTimeout: a configured lock was not had in time (409, retryable).
    """
    lock = locks.creating(new.consultation_id, caller.user_id)
    try:
        return once(keyed, lock=lock, ahead=lambda: new, work=lambda new: _make(new, caller, keyed, deed, render))
    except ActivePaymentExists as taken:
        tell_duplicate(keyed, "index", payment_id=(taken.data or {}).get("payment_id"))
        raise


def _make(new: NewPayment, caller: Caller, keyed: KeyedRequest, deed: Deed, render: Render) -> Answer:
    payment = _payment_row(new, payment_id=next_id(PAYMENTS.name), user_id=caller.user_id, at=deed.at)
    invoice = _invoice_row(payment, invoice_id=next_id(INVOICES.name))
    answer = render(payment, invoice)
    rows = {
        PAYMENTS: payment,
        TAX_RECORDS: _tax_row(payment, rate_basis_points=new.tax_rate_basis_points),
        INVOICES: invoice,
        EVENTS: _event_row(payment, deed),
        KEYS: keyed.row(answer, payment_id=payment["id"], at=deed.at),
    }
    insert_or_explain = _insert_under_lock if locks.locks_rows() else _insert_alone
    given = insert_or_explain(rows, caller, keyed, answer)
    if given is answer:
        _tell_created(payment, deed)
    return given


def _tell_created(payment: Row, deed: Deed) -> None:
    metrics.PAYMENTS_CREATED.labels(payment["payment_method"]).inc()
    log.info(
        "Payment: created",
        payment_id=payment["id"],
        consultation_id=payment["consultation_id"],
        method=payment["payment_method"],
        gateway=payment["gateway"],
        actor=deed.actor,
    )


def _insert_or_explain(
    session: Session, rows: dict[Table, Row], caller: Caller, keyed: KeyedRequest, answer: Answer
) -> Answer:
    payment = rows[PAYMENTS]
    try:
        given = _insert_or_replay(session, rows, caller, answer)
        if given is not None:
            return given
    except IntegrityError as error:
        if not isinstance(broken_constraint(error), KeyTaken):
            raise
        session.rollback()
    # The one who was first has committed by now, and the next statement sees what they did.
    found = _explain(session, payment, caller, keyed)
    if found is None:
        raise LostRace  # what stood in the way is gone again: one more attempt
    if found.payment_id == payment["id"]:
        return answer  # by an earlier attempt of ours, which the one after it had to wait for
    return idempotency.replay(found, keyed)


_insert_alone = write_statement(_insert_or_explain)


@write_transaction
def _insert_under_lock(
    session: Session, rows: dict[Table, Row], caller: Caller, keyed: KeyedRequest, answer: Answer
) -> Answer:
    lock_consultation(session, rows[PAYMENTS]["consultation_id"])
    return _insert_or_explain(session, rows, caller, keyed, answer)


def _insert_or_replay(session: Session, rows: dict[Table, Row], caller: Caller, answer: Answer) -> Answer | None:
    """Insert the five rows; None, and nothing inserted, where the payment may not be made.

    On PostgreSQL also the first answer of a key that was used for the same request, which is the end of most retries.
    Not where that was an earlier attempt of ours, whose commit was done and whose confirmation was lost.
    """
    values = {f"{table.name}__{column}": value for table, row in rows.items() for column, value in row.items()}
    values.update(caller_role=caller.role, caller_token_version=caller.token_version)
    if session.get_bind().dialect.name != "postgresql":
        is_made = all(session.execute(statement, values).first() is not None for statement in _STATEMENTS_IN_TURN)
        return answer if is_made else None
    for payment_id, status, body in _ONE_STATEMENT.rows(session, values):
        if payment_id == rows[PAYMENTS]["id"]:
            return answer
        if body is not None:  # else dropped for its age
            return Answer(status, body, replayed=True)
    return None


def _explain(session: Session, payment: Row, caller: Caller, keyed: KeyedRequest) -> IdempotencyKey | None:
    """Why no payment was made, judged in the order of the contract; or the key's row, where the key was used.

    One statement, so that all it judges is of one moment (a key's row is read after it: of that, the request stays as
    it is). None where nothing stands in the way any more.
    """
    asked = {"consultation_id": payment["consultation_id"], "user_id": keyed.user_id, "key": keyed.key}
    (row,) = _WHY.rows(session, asked)
    why = _Why(*row)
    caller.require_still(None if why.user_id is None else why)
    if why.patient_id is None:
        raise ConsultationNotFound
    if why.patient_id != caller.user_id:
        raise Forbidden
    if why.key is not None:
        return session.get_one(IdempotencyKey, (keyed.user_id, keyed.key))
    if why.payment_id is not None:
        raise ActivePaymentExists(payment_id=why.payment_id, payment_status=why.status)
    if why.currency != payment["currency"]:
        raise ConsultationCurrency(of_consultation=why.currency, of_payments=payment["currency"])
    if why.fee_minor not in (None, payment["amount_minor"]):
        raise ValidationFailed({"amount": [Message("The fee is %(fee)s.", fee=money.to_major(why.fee_minor))]})
    return None

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
from payments_app.accounts.repository import require_valid
from payments_app.consultations.repository import lock_consultation
from payments_app.db.errors import IdempotencyKeyConflict, RetryTransaction, constraint_meaning
from payments_app.db.ids import next_id
from payments_app.db.transaction import write_statement, write_transaction
from payments_app.errors import (
    ActivePaymentExists,
    ConsultationCurrency,
    ConsultationNotFound,
    Forbidden,
    ValidationFailed,
)
from payments_app.i18n.messages import LocalizedMessage
from payments_app.idempotency import repository as idempotency
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.idempotency.service import record_duplicate, run_idempotent
from payments_app.locking import locks
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.payments.create_statement import (
    _WHY,
    EVENTS,
    INVOICES,
    KEYS,
    PAYMENTS,
    STATEMENTS,
    STATEMENTS_OF_PAYER,
    TAX_RECORDS,
    NewPayment,
    Row,
    _event_row,
    _invoice_row,
    _payment_row,
    _tax_row,
    _Why,
)
from payments_app.payments.models.event import AuditContext

log = get_logger(__name__)
# What the doors make of a new payment and its invoice.
Render = Callable[[Row, Row], StoredResponse]


def create(
    new: NewPayment, *, caller: Caller, request: IdempotentRequest, context: AuditContext, render: Render
) -> StoredResponse:
    """Make a pending payment with its invoice, tax record, event and key; or give the answer that the key gave before.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended, or the link of a payer no longer stands (401).
        ConsultationNotFound: no such consultation, or not the one of the payer's link (404).
        Forbidden: another patient's consultation (403).
        IdempotencyKeyReused: the key was used for another request (422).
        ActivePaymentExists: the consultation has an active payment (409).
        ConsultationCurrency: the consultation was registered in another currency (409).
        ValidationFailed: the amount is not the consultation's fee (422).
        LockTimeout: a configured lock was not had in time (409, retryable).
    """
    if caller.consultation_id not in (None, new.consultation_id):
        raise ConsultationNotFound
    lock = locks.create_lock(new.consultation_id, caller.user_id)
    try:
        return run_idempotent(
            request, lock=lock, prepare=lambda: new, execute=lambda new: _make(new, caller, request, context, render)
        )
    except ActivePaymentExists as taken:
        record_duplicate(request, "index", payment_id=(taken.data or {}).get("payment_id"))
        raise


def _make(
    new: NewPayment, caller: Caller, request: IdempotentRequest, context: AuditContext, render: Render
) -> StoredResponse:
    payment = _payment_row(new, payment_id=next_id(PAYMENTS.name), user_id=caller.user_id, at=context.at)
    invoice = _invoice_row(payment, invoice_id=next_id(INVOICES.name))
    response = render(payment, invoice)
    rows = {
        PAYMENTS: payment,
        TAX_RECORDS: _tax_row(payment, rate_basis_points=new.tax_rate_basis_points),
        INVOICES: invoice,
        EVENTS: _event_row(payment, context),
        KEYS: request.row(response, payment_id=payment["id"], at=context.at),
    }
    insert_or_explain = _insert_under_lock if locks.uses_row_locks() else _insert_alone
    given = insert_or_explain(rows, caller, request, response)
    if given is response:
        _tell_created(payment, context)
    return given


def _tell_created(payment: Row, context: AuditContext) -> None:
    metrics.PAYMENTS_CREATED.labels(payment["payment_method"]).inc()
    log.info(
        "Payment: created",
        payment_id=payment["id"],
        consultation_id=payment["consultation_id"],
        method=payment["payment_method"],
        gateway=payment["gateway"],
        actor=context.actor,
    )


def _insert_or_explain(
    session: Session, rows: dict[Table, Row], caller: Caller, request: IdempotentRequest, response: StoredResponse
) -> StoredResponse:
    payment = rows[PAYMENTS]
    try:
        given = _insert_or_replay(session, rows, caller, response)
        if given is not None:
            return given
    except IntegrityError as error:
        if not isinstance(constraint_meaning(error), IdempotencyKeyConflict):
            raise
        session.rollback()
    # The one who was first has committed by now, and the next statement sees what they did.
    found = _explain(session, payment, caller, request)
    if found is None:
        raise RetryTransaction  # what stood in the way is gone again: one more attempt
    if found.payment_id == payment["id"]:
        return response  # by an earlier attempt of ours, which the one after it had to wait for
    return idempotency.replay(found, request)


_insert_alone = write_statement(_insert_or_explain)


@write_transaction
def _insert_under_lock(
    session: Session, rows: dict[Table, Row], caller: Caller, request: IdempotentRequest, response: StoredResponse
) -> StoredResponse:
    lock_consultation(session, rows[PAYMENTS]["consultation_id"])
    return _insert_or_explain(session, rows, caller, request, response)


def _insert_or_replay(
    session: Session, rows: dict[Table, Row], caller: Caller, response: StoredResponse
) -> StoredResponse | None:
    """Insert the five rows; None, and nothing inserted, where the payment may not be made.

    On PostgreSQL also the first answer of a key that was used for the same request, which is the end of most retries.
    Not where that was an earlier attempt of ours, whose commit was done and whose confirmation was lost.
    """
    values = {f"{table.name}__{column}": value for table, row in rows.items() for column, value in row.items()}
    values.update(caller_role=caller.user_role, caller_token_version=caller.token_version)
    values.update(caller_link_id=caller.link_id, caller_at=rows[PAYMENTS]["created_at"])
    statements = STATEMENTS_OF_PAYER if caller.link_id is not None else STATEMENTS
    if session.get_bind().dialect.name != "postgresql":
        is_made = all(session.execute(statement, values).first() is not None for statement in statements.in_turn)
        return response if is_made else None
    for payment_id, status, body in statements.at_once.rows(session, values):
        if payment_id == rows[PAYMENTS]["id"]:
            return response
        if body is not None:  # else dropped for its age
            return StoredResponse(status, body, replayed=True)
    return None


def _explain(session: Session, payment: Row, caller: Caller, request: IdempotentRequest) -> IdempotencyKey | None:
    """Why no payment was made, judged in the order of the contract; or the key's row, where the key was used.

    One statement, so that all it judges is of one moment (a key's row is read after it: of that, the request stays as
    it is). None where nothing stands in the way any more.
    """
    asked = {"consultation_id": payment["consultation_id"], "user_id": request.user_id, "key": request.key}
    (row,) = _WHY.rows(session, asked)
    why = _Why(*row)
    if caller.link_id is not None:
        require_valid(session, caller)
    caller.require_unchanged(None if why.user_id is None else why)
    if why.patient_id is None:
        raise ConsultationNotFound
    if why.patient_id != caller.user_id:
        raise Forbidden
    if why.key is not None:
        return session.get_one(IdempotencyKey, (request.user_id, request.key))
    if why.payment_id is not None:
        raise ActivePaymentExists(payment_id=why.payment_id, payment_status=why.status)
    if why.currency != payment["currency"]:
        raise ConsultationCurrency(of_consultation=why.currency, of_payments=payment["currency"])
    if why.fee_minor not in (None, payment["amount_minor"]):
        raise ValidationFailed({"amount": [LocalizedMessage("The fee is %(fee)s.", fee=money.to_major(why.fee_minor))]})
    return None

"""Creates a payment: five rows that are inserted together or not at all.

``create_statement.py`` has the rows and the SQL. PostgreSQL gets one statement of Core inserts, chained by CTEs. SQLite
has no inserting CTEs: it gets the same inserts one after another, under its write lock. On both, the payment is
inserted only if its consultation is the caller's and may be paid. ON CONFLICT DO NOTHING lets the partial unique index
decide. The key's insert has no such clause, so that a key used elsewhere undoes everything.

If no row comes back, one read finds out why. Nothing is read beforehand: that would be a race. (On PostgreSQL the
statement itself checks whether the key is known. That saves the work of most retries, and decides nothing.)
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
from payments_app.consultations.models import Consultation
from payments_app.consultations.repository import lock_consultation
from payments_app.db.errors import IdempotencyKeyConflict, RetryTransaction, constraint_meaning
from payments_app.db.ids import next_id
from payments_app.db.row_waits import enter_queue
from payments_app.db.transaction import write_statement, write_transaction
from payments_app.errors import (
    ActivePaymentExists,
    ConsultationClosed,
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
    _CURRENT_STATE,
    EVENTS,
    INVOICES,
    KEYS,
    PARAMETERS,
    PAYMENTS,
    STATEMENTS,
    STATEMENTS_OF_PAYER,
    TAX_RECORDS,
    NewPayment,
    Row,
    _CurrentState,
    _event_row,
    _invoice_row,
    _payment_row,
    _tax_row,
)
from payments_app.payments.models.event import AuditContext

log = get_logger(__name__)
# Makes the response from the rows of the new payment and its invoice.
Render = Callable[[Row, Row], StoredResponse]


def create(
    new: NewPayment, *, caller: Caller, request: IdempotentRequest, context: AuditContext, render: Render
) -> StoredResponse:
    """Create a pending payment with its invoice, tax record, event and key; or return the response stored for the key.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended, or the link of a payer no longer stands (401).
        ConsultationNotFound: no such consultation, or not the one of the payer's link (404).
        Forbidden: the consultation belongs to another patient (403).
        IdempotencyKeyReused: the key was used for another request (422).
        ActivePaymentExists: the consultation has an active payment (409).
        ConsultationClosed: the consultation is closed (409).
        ConsultationCurrency: the consultation was registered in another currency (409).
        ValidationFailed: the amount is not the consultation's fee (422).
        LockTimeout: a lock was not acquired in time (409, retryable).
    """
    if caller.consultation_id not in (None, new.consultation_id):
        raise ConsultationNotFound
    lock = locks.create_lock(new.consultation_id, caller.user_id)
    try:
        return run_idempotent(
            request, lock=lock, prepare=lambda: new, execute=lambda new: _create(new, caller, request, context, render)
        )
    except ActivePaymentExists as taken:
        record_duplicate(request, "index", payment_id=(taken.data or {}).get("payment_id"))
        raise


def _create(
    new: NewPayment, caller: Caller, request: IdempotentRequest, context: AuditContext, render: Render
) -> StoredResponse:
    payment = _payment_row(new, payment_id=next_id(PAYMENTS.name), user_id=caller.user_id, at=context.at)
    invoice = _invoice_row(payment, invoice_id=next_id(INVOICES.name))
    response = render(payment, invoice)
    rows = {
        PAYMENTS: payment,
        TAX_RECORDS: _tax_row(payment, rate_basis_points=new.tax_rate_basis_points, basis=new.tax_basis),
        INVOICES: invoice,
        EVENTS: _event_row(payment, context),
        KEYS: request.row(response, payment_id=payment["id"], at=context.at),
    }
    insert_or_explain = _insert_under_lock if locks.uses_row_locks() else _insert_alone
    result = insert_or_explain(rows, caller, request, response)
    if result is response:
        _report_created(payment, context)
    return result


def _report_created(payment: Row, context: AuditContext) -> None:
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
    # The insert waits for a change of the consultation, and for another payment of it that is not committed yet.
    enter_queue(session, Consultation.__tablename__, payment["consultation_id"])
    try:
        result = _insert_or_replay(session, rows, caller, response)
        if result is not None:
            return result
    except IntegrityError as error:
        if not isinstance(constraint_meaning(error), IdempotencyKeyConflict):
            raise
        session.rollback()
    # The competing request has committed by now, and the next statement sees its rows.
    stored_key = _explain(session, payment, caller, request)
    if stored_key is None:
        raise RetryTransaction  # the obstacle is gone again: one more attempt
    if stored_key.payment_id == payment["id"]:
        return response  # an earlier attempt of this request committed, and its confirmation was lost
    return idempotency.replay(stored_key, request)


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
    """Insert the five rows. Returns None, and inserts nothing, if the payment may not be created.

    On PostgreSQL it also returns the stored response of a key that was used for the same request: most retries end
    here. If an earlier attempt of this request committed and its confirmation was lost, it returns ``response``.
    """
    values = {PARAMETERS[table][column]: value for table, row in rows.items() for column, value in row.items()}
    values.update(caller_role=caller.user_role, caller_token_version=caller.token_version)
    values.update(caller_link_id=caller.link_id, caller_at=rows[PAYMENTS]["created_at"])
    statements = STATEMENTS_OF_PAYER if caller.link_id is not None else STATEMENTS
    if session.get_bind().dialect.name != "postgresql":
        is_inserted = all(session.execute(statement, values).first() is not None for statement in statements.in_turn)
        return response if is_inserted else None
    for payment_id, status, body in statements.at_once.rows(session, values):
        if payment_id == rows[PAYMENTS]["id"]:
            return response
        if body is not None:  # None: the response was pruned
            return StoredResponse(status, body, replayed=True)
    return None


def _explain(session: Session, payment: Row, caller: Caller, request: IdempotentRequest) -> IdempotencyKey | None:
    """Find out why no payment was inserted, and raise that error; checks follow the order of the contract.

    Returns the key's row if the key was used, and None if no obstacle is left. One statement, so that all checks see
    one moment. (The key's row is read after it: its request never changes.)
    """
    parameters = {"consultation_id": payment["consultation_id"], "user_id": request.user_id, "key": request.key}
    (row,) = _CURRENT_STATE.rows(session, parameters)
    state = _CurrentState(*row)
    if caller.link_id is not None:
        require_valid(session, caller)
    caller.require_unchanged(None if state.user_id is None else state)
    if state.patient_id is None:
        raise ConsultationNotFound
    if state.patient_id != caller.user_id:
        raise Forbidden
    if state.key is not None:
        return session.get_one(IdempotencyKey, (request.user_id, request.key))
    if state.payment_id is not None:
        raise ActivePaymentExists(payment_id=state.payment_id, payment_status=state.status)
    if state.closed_at is not None:
        raise ConsultationClosed
    if state.currency != payment["currency"]:
        raise ConsultationCurrency(of_consultation=state.currency, of_payments=payment["currency"])
    if state.fee_minor not in (None, payment["amount_minor"]):
        raise ValidationFailed(
            {"amount": [LocalizedMessage("The fee is %(fee)s.", fee=money.to_major(state.fee_minor))]}
        )
    return None

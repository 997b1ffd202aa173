"""Looking keys up and keeping them, inside the transaction of the effect they guard."""

from datetime import datetime

from sqlalchemy.orm import Session

from payments_app.errors import IdempotencyKeyReused
from payments_app.idempotency.keyed import Answer, KeyedRequest
from payments_app.idempotency.models import IdempotencyKey


def find_answer(session: Session, keyed: KeyedRequest) -> Answer | None:
    """What was answered under this key before, or None.

    Raises:
        IdempotencyKeyReused: the key was used for another request (422).
    """
    row = session.get(IdempotencyKey, (keyed.user_id, keyed.key))
    return None if row is None else replay(row, keyed)


def replay(row: IdempotencyKey, keyed: KeyedRequest) -> Answer:
    """The first answer again.

    Raises:
        IdempotencyKeyReused: the key was used for another request (422).
    """
    if row.request_hash != keyed.fingerprint:
        raise IdempotencyKeyReused(keyed.fields_that_differ(row.operation, row.request))
    return Answer(row.response_status, row.response_body or "", replayed=True)


def keep(session: Session, keyed: KeyedRequest, answer: Answer, *, payment_id: int, at: datetime) -> None:
    """Keep the answer under its key; a twin that was quicker shows as ``KeyTaken`` at the flush."""
    session.add(IdempotencyKey(**keyed.row(answer, payment_id=payment_id, at=at)))

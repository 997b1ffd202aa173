"""Reads and stores idempotency keys, in the transaction of the effect that they protect."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, func, insert, literal_column, or_, select, tuple_, update
from sqlalchemy.orm import Session, joinedload

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import User
from payments_app.accounts.repository import require_valid
from payments_app.db.base import table_of
from payments_app.db.errors import RetryTransaction
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import IdempotencyKeyNotFound, IdempotencyKeyReused
from payments_app.idempotency.models import IdempotencyKey
from payments_app.idempotency.request import IdempotentRequest, StoredResponse


def response_of(row: IdempotencyKey | None, request: IdempotentRequest) -> StoredResponse | None:
    """The response stored under a key, of which this is the row; None if there is no row, so that the key is new.

    The row must have been read no later than what the response shows.

    Raises:
        IdempotencyKeyReused: the key was used for another request (422).
    """
    return None if row is None else replay(row, request)


def was_used(row: IdempotencyKey | None, request: IdempotentRequest) -> bool:
    """Whether the same request was processed under this key before, of which this is the row.

    Raises:
        IdempotencyKeyReused: the key was used for another request (422).
    """
    if row is not None:
        _require_same(row, request)
    return row is not None


@read_transaction
def find_committed(session: Session, request: IdempotentRequest) -> StoredResponse | None:
    """The response stored under the request's key, read in a transaction of its own; None if the key is new.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
        IdempotencyKeyReused: the key was used for another request (422).
    """
    require_valid(session, request.caller)
    return response_of(session.get(IdempotencyKey, (request.user_id, request.key)), request)


@read_transaction
def is_used(session: Session, user_id: int, key: str) -> bool:
    """Whether the key exists. Keys are never deleted, so a True stays true."""
    of_key = select(IdempotencyKey.user_id).where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key)
    return session.scalar(of_key) is not None


@read_transaction
def get_key(session: Session, caller: Caller, key: str) -> IdempotencyKey:
    """A key with the payment that it created or changed, and with its refund, if there is one.

    It includes the first response, as a replay does. So the user is checked as for a replay, in the same statement.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
        IdempotencyKeyNotFound: nothing is committed under the key so far; for a payer, not by their consultation (404).
    """
    found = session.execute(
        select(User, IdempotencyKey)
        .outerjoin(IdempotencyKey, and_(IdempotencyKey.user_id == User.id, IdempotencyKey.key == key))
        .where(User.id == caller.user_id)
        .options(joinedload(IdempotencyKey.payment), joinedload(IdempotencyKey.refund))
    ).one_or_none()
    user, row = found or (None, None)
    caller.require_unchanged(user)
    if row is None or caller.consultation_id not in (None, row.payment.consultation_id):
        raise IdempotencyKeyNotFound
    return row


def replay(row: IdempotencyKey, request: IdempotentRequest) -> StoredResponse:
    """The first response again; the present state if the response was pruned or never stored.

    Raises:
        IdempotencyKeyReused: the key was used for another request (422).
    """
    _require_same(row, request)
    if row.response_body is None or request.replays_current_state:
        return request.render_current(row).as_replay()
    return StoredResponse(row.response_status, row.response_body, replayed=True)


def _require_same(row: IdempotencyKey, request: IdempotentRequest) -> None:
    if row.request_hash != request.fingerprint:
        raise IdempotencyKeyReused(request.fields_that_differ(row.operation, row.request))


def store(
    session: Session,
    request: IdempotentRequest,
    response: StoredResponse,
    *,
    payment_id: int,
    refund_id: int | None = None,
    at: datetime,
) -> None:
    """Store the response under its key, if the caller's user is still as the token says.

    Raises:
        IdempotencyKeyConflict: another request used the key first, so that this one is to be tried again.
        NotAuthenticated, Forbidden: as ``require_valid`` (401, 403).
    """
    caller = request.caller
    row = request.row(response, payment_id=payment_id, refund_id=refund_id, at=at)
    state = {"caller_role": caller.user_role, "caller_token_version": caller.token_version}
    if not _INSERT_FOR_VALID_USER.rows(session, {**row, **state}):
        require_valid(session, caller)
        raise RetryTransaction  # the user is valid again by now


_KEYS = table_of(IdempotencyKey)


def _value(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=_KEYS.c[name].type)


# Without the ORM, which would need a statement more to compare the user. Keys have no version to guard.
_INSERT_FOR_VALID_USER = DirectStatement(
    insert(_KEYS)
    .from_select(
        _KEYS.c.keys(),
        select(*map(_value, _KEYS.c.keys())).where(
            User.id == _value("user_id"),
            User.disabled_at.is_(None),
            User.role == bindparam("caller_role", type_=User.role.type),
            User.token_version == bindparam("caller_token_version", type_=User.token_version.type),
        ),
    )
    .returning(literal_column("1"))
)

_STORE_FINAL = DirectStatement(
    update(_KEYS)
    .where(_KEYS.c.user_id == bindparam("of_user"), _KEYS.c.key == bindparam("of_key"))
    .values(response_status=bindparam("status"), response_body=bindparam("body"))
    .returning(literal_column("1"))
)


def store_final(session: Session, request: IdempotentRequest, response: StoredResponse) -> None:
    """Replace the stored response by the final one, if effect and outcome are two transactions."""
    of_key = {"of_user": request.user_id, "of_key": request.key}
    _STORE_FINAL.rows(session, {**of_key, "status": response.status, "body": response.body})


@read_transaction
def count_whole(session: Session, before: datetime) -> int:
    """The number of keys older than ``before`` that are not pruned yet."""
    whole = select(func.count()).select_from(IdempotencyKey).where(IdempotencyKey.response_body.is_not(None))
    return session.scalars(whole.where(IdempotencyKey.created_at < before)).one()


@write_transaction
def prune_batch(session: Session, *, before: datetime, size: int) -> int:
    """Drop request and response of at most ``size`` keys older than ``before``. Returns how many."""
    oldest = (
        select(IdempotencyKey.user_id, IdempotencyKey.key)
        .where(IdempotencyKey.response_body.is_not(None), IdempotencyKey.created_at < before)
        .order_by(IdempotencyKey.created_at)
        .limit(size)
    )
    # A Core statement: keys have no version to guard, and a million of them must not become objects.
    keys = table_of(IdempotencyKey)
    shrunk = (
        update(keys)
        # The condition again, because another prune may have changed a row at the same moment.
        .where(tuple_(keys.c.user_id, keys.c.key).in_(oldest), keys.c.response_body.is_not(None))
        .values(request=None, response_body=None)
        .returning(keys.c.user_id)
    )
    return len(session.execute(shrunk).all())


def forget_patient(session: Session, user_id: int, payment_ids: Sequence[int]) -> list[tuple[int, str]]:
    """Drop request and response of every key that the patient used, or that anybody used for one of these payments.

    Returns them all, pruned before or not: each the id of its user and the key itself.
    """
    keys = table_of(IdempotencyKey)
    forgotten = (
        update(keys)
        .where(or_(keys.c.user_id == user_id, keys.c.payment_id.in_(payment_ids)))
        .values(request=None, response_body=None)
        .returning(keys.c.user_id, keys.c.key)
    )
    return [(user_id, key) for user_id, key in session.execute(forgotten)]

"""API keys in the database: made, found, listed, rotated, and revoked."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from sqlalchemy import Select, bindparam, or_, select, update
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts import key_format
from payments_app.accounts.caller import Caller, KeyRecord
from payments_app.accounts.models import ApiKey, Role, Scope, User
from payments_app.accounts.repository import by_email
from payments_app.db.base import dialect_insert
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import after_commit, read_transaction, write_statement, write_transaction
from payments_app.errors import DatabaseBusy, DatabaseUnavailable, NotAuthenticated, NotFound, UserNotFound
from payments_app.i18n.messages import N_
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger
from payments_app.pagination import Page

log = get_logger(__name__)

# An hour is exact enough to see which keys are in use, and costs each key one write an hour.
_USE_IS_NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to be made. ``lifetime``: None if it is valid until it is revoked."""

    name: str
    scopes: Collection[Scope]
    lifetime: timedelta | None
    created_by: str


def authenticate(key: str) -> Caller:
    """The user of an API key, as the database has both at this moment.

    Raises:
        NotAuthenticated: no such key; it was revoked or has expired; or its user was disabled (401).
    """
    if not key_format.is_key(key):
        _refuse("malformed")
    found = _find(key_format.hash_of(key))
    if found is None:
        _refuse("unknown")
    caller, record, last_used_at = found
    now = clock.now()
    if not record.is_valid(now):
        _refuse("disabled" if record.disabled_at else "revoked" if record.revoked_at else "expired")
    if last_used_at is None or last_used_at <= now - _USE_IS_NOTED_EVERY:
        _note_use_if_possible(caller, now)
    return caller


def _refuse(reason: str) -> NoReturn:
    metrics.API_KEYS_REFUSED.labels(reason).inc()
    raise NotAuthenticated


_OF_KEY = (User.role, User.token_version, User.disabled_at, ApiKey.expires_at, ApiKey.revoked_at)
_WANTED: Select[Any] = select(*_OF_KEY, ApiKey.last_used_at, ApiKey.id, ApiKey.user_id, ApiKey.scopes)  # type: ignore[assignment]  # untyped for so many columns
_BY_HASH = DirectStatement(
    _WANTED.join_from(ApiKey, User, User.id == ApiKey.user_id).where(
        ApiKey.key_hash == bindparam("key_hash", type_=ApiKey.key_hash.type)
    )
)


@read_transaction
def _find(session: Session, key_hash: str) -> tuple[Caller, KeyRecord, datetime | None] | None:
    row = next(iter(_BY_HASH.rows(session, {"key_hash": key_hash})), None)
    if row is None:
        return None
    *of_key, last_used_at, key_id, user_id, scopes = row
    record = KeyRecord(*of_key)
    caller = Caller(
        user_id=user_id,
        role=Role(record.role),
        token_version=record.token_version,
        key_id=key_id,
        scopes=frozenset(scopes.split()),
    )
    return caller, record, last_used_at


def _note_use_if_possible(caller: Caller, now: datetime) -> None:
    """A database that is busy or only read must not refuse a request for this note: the next request tries again."""
    try:
        _note_use(caller.key_id, now.replace(minute=0, second=0, microsecond=0))
    except (DatabaseBusy, DatabaseUnavailable) as error:
        log.info("API key: use not noted", key_id=caller.key_id, reason=error.code)


@write_statement
def _note_use(session: Session, key_id: int | None, hour: datetime) -> None:
    is_due = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < hour)
    # A request that changes something locks the row of its key (``repository.require_valid``): do not wait for it.
    free = select(ApiKey.id).where(ApiKey.id == key_id, is_due).with_for_update(skip_locked=True)
    session.execute(update(ApiKey).where(ApiKey.id.in_(free)).values(last_used_at=hour))


def create(new: NewKey, *, email: str) -> tuple[ApiKey, str]:
    """Make a key for a user. The second value is the key itself, which is kept nowhere.

    Raises:
        UserNotFound: no user has that e-mail address, or the user is disabled (404).
    """
    key = key_format.new_key()
    return _create(new, key, email=email), key


@write_transaction
def _create(session: Session, new: NewKey, key: str, *, email: str) -> ApiKey:
    user = session.scalar(by_email(email))
    if user is None or user.disabled_at is not None:
        raise UserNotFound
    return _insert(session, user.id, new, key)


def rotate(key_id: int, *, overlap: timedelta, created_by: str) -> tuple[ApiKey, str]:
    """Make a new key like this one, which stays valid for the ``overlap``. The second value is the new key itself.

    The new key has the name, the scopes and the lifetime of the old one.

    Raises:
        NotFound: no such key, or it is no longer valid (404).
    """
    key = key_format.new_key()
    return _rotate(key_id, key, overlap=overlap, created_by=created_by), key


@write_transaction
def _rotate(session: Session, key_id: int, key: str, *, overlap: timedelta, created_by: str) -> ApiKey:
    old = session.get(ApiKey, key_id, with_for_update=True)
    made = session.scalar(_made(key))
    if made is not None:  # by an earlier attempt, which may have ended the old key
        return made
    now = clock.now()
    if old is None or old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        raise NotFound(N_("No such API key, or it is no longer valid: make a new one."))
    lifetime = old.expires_at - old.created_at if old.expires_at is not None else None
    scopes = [Scope(scope) for scope in old.scopes.split()]
    new = NewKey(name=old.name, scopes=scopes, lifetime=lifetime, created_by=created_by)
    made = _insert(session, old.user_id, new, key)
    end = now + overlap
    old.expires_at = end if old.expires_at is None else min(old.expires_at, end)
    return made


def _made(key: str) -> Select[ApiKey]:
    return select(ApiKey).where(ApiKey.key_hash == key_format.hash_of(key))


def _insert(session: Session, user_id: int, new: NewKey, key: str) -> ApiKey:
    now = clock.now()
    # If an earlier attempt committed and its confirmation was lost, its row is ours: nobody else has this key.
    row = dialect_insert(session, ApiKey).values(
        user_id=user_id,
        name=new.name,
        prefix=key[: key_format.SHOWN_LENGTH],
        key_hash=key_format.hash_of(key),
        scopes=" ".join(sorted(set(new.scopes))),
        created_by=new.created_by,
        created_at=now,
        expires_at=None if new.lifetime is None else now + new.lifetime,
    )
    session.execute(row.on_conflict_do_nothing(index_elements=[ApiKey.key_hash]))
    made = session.scalars(_made(key)).one()
    after_commit(
        made,
        lambda: log.info(
            "API key: created", key_id=made.id, user_id=user_id, scopes=made.scopes, actor=made.created_by
        ),
    )
    return made


@write_transaction
def revoke(session: Session, key_id: int, *, actor: str) -> ApiKey:
    """End a key. Again, it has no effect.

    It waits for the transactions of requests with that key, which lock its row: after it, none of them has any effect.

    Raises:
        NotFound: no such key (404).
    """
    key = session.get(ApiKey, key_id, with_for_update=True)
    if key is None:
        raise NotFound(N_("No such API key."))
    if key.revoked_at is None:
        key.revoked_at = clock.now()
        after_commit(key, lambda: log.info("API key: revoked", key_id=key_id, actor=actor))
    return key


@read_transaction
def list_page(session: Session, *, email: str | None, before_id: int | None, per_page: int) -> Page[tuple[ApiKey, str]]:
    """Keys with the e-mail address of their user, newest first: of one user, or of all.

    Raises:
        UserNotFound: no user has that e-mail address (404).
    """
    wanted = select(ApiKey, User.email).join_from(ApiKey, User, User.id == ApiKey.user_id)
    if email is not None:
        user = session.scalar(by_email(email))
        if user is None:
            raise UserNotFound
        wanted = wanted.where(ApiKey.user_id == user.id)
    if before_id is not None:
        wanted = wanted.where(ApiKey.id < before_id)
    rows = session.execute(wanted.order_by(ApiKey.id.desc()).limit(per_page + 1)).all()
    return Page.cut([(row[0], row[1]) for row in rows], per_page)


def state_of(key: ApiKey, now: datetime) -> str:
    """``valid``, ``expired`` or ``revoked``."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"

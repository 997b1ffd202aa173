"""Queries and changes of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, bindparam, or_, select
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts import emails, names
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role, User
from payments_app.db.base import dialect_insert
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import UserExists, UserNotFound, ValidationFailed
from payments_app.i18n.messages import N_


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user data that a login is checked with."""

    user_id: int
    role: str
    token_version: int
    password_hash: str
    disabled: bool


@read_transaction
def find_credentials(session: Session, email: str) -> Credentials | None:
    """The credentials of an e-mail address in any spelling; None if no user has it."""
    user = session.scalar(by_email(email))
    if user is None:
        return None
    return Credentials(user.id, user.role, user.token_version, user.password_hash, user.disabled_at is not None)


@read_transaction
def get_self(session: Session, caller: Caller) -> User:
    """The caller's own record.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
    """
    return require_valid(session, caller)


@read_transaction
def check_valid(session: Session, caller: Caller) -> None:
    """``require_valid`` in its own transaction: for reads by staff, and for responses that come from Redis."""
    row = next(iter(_RECORD.rows(session, {"user_id": caller.user_id})), None)
    caller.require_unchanged(None if row is None else _Record(*row))


class _Record(NamedTuple):
    """The columns that a token's claims are compared with."""

    role: str
    token_version: int
    disabled_at: datetime | None


_OF_USER = select(User.role, User.token_version, User.disabled_at).where(
    User.id == bindparam("user_id", type_=User.id.type)
)
_RECORD = DirectStatement(_OF_USER)  # type: ignore[arg-type]  # typed for rows of any columns


def by_email(email: str) -> Select[User]:
    """Selects the user with that e-mail address in any spelling.

    From before the normalization, two users may have one address in two spellings: each is found by their own spelling.
    """
    spelling = emails.storable(email).lower()
    found = select(User).where(or_(User.normalized_email == emails.normalized(email), User.email == spelling))
    return found.order_by(User.email != spelling).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user to add. ``password_hash`` is ``none`` if no password is valid for them."""

    email: str
    name: str
    role: Role
    password_hash: str
    token_version: int = 0


def insert_user(session: Session, new: NewUser) -> int | None:
    """Insert a user and return the id; None if the e-mail address is taken. All users are added through this function.

    Raises:
        ValidationFailed: the e-mail address or the name is not valid (422).
    """
    email = emails.normalized(new.email)
    errors = {}
    if not emails.is_address(email):
        errors["email"] = [N_("Not a valid e-mail address.")]
    if not names.is_name(new.name):
        errors["name"] = [N_("Must have 1 to 200 characters, and no control characters.")]
    if errors:
        raise ValidationFailed(errors)
    inserted = dialect_insert(session, User).values(
        email=email,
        normalized_email=email,
        name=new.name,
        role=new.role.value,
        password_hash=new.password_hash,
        token_version=new.token_version,
        created_at=clock.now(),
    )
    user_id: int | None = session.scalar(inserted.on_conflict_do_nothing().returning(User.id))
    return user_id


@write_transaction
def add_user(session: Session, new: NewUser) -> User:
    """Add a user.

    Raises:
        UserExists: the e-mail address is taken (409).
        ValidationFailed: the e-mail address or the name is not valid (422).
    """
    user_id = insert_user(session, new)
    if user_id is None:
        raise UserExists
    return session.get_one(User, user_id)


@write_transaction
def disable_user(session: Session, email: str) -> User:
    """Disable a user: no more logins, and all their tokens become invalid.

    Raises:
        UserNotFound: no user has that e-mail address (404).
    """
    user = session.scalar(by_email(email).with_for_update())
    if user is None:
        raise UserNotFound
    user.disabled_at = user.disabled_at or clock.now()
    user.token_version += 1
    return user


@read_transaction
def users_without_normalized_email(session: Session, limit: int) -> Sequence[int]:
    """Ids of users who can log in with one spelling of their e-mail address only; at most ``limit``."""
    found = select(User.id).where(User.normalized_email.is_(None), User.disabled_at.is_(None))
    return session.scalars(found.order_by(User.id).limit(limit)).all()


@read_transaction
def get_user(session: Session, user_id: int) -> User:
    """A user who is known to exist."""
    return session.get_one(User, user_id)


def require_valid(session: Session, caller: Caller) -> User:
    """Compare a token's claims with the database; part of every transaction that writes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
    """
    return caller.require_unchanged(session.get(User, caller.user_id))

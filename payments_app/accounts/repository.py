"""Users, as the database knows them."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.callers import Caller
from payments_app.accounts.models import Role, User
from payments_app.database import SingleStatement, insert_or_nothing, read_transaction, write_transaction
from payments_app.errors import UserExists, UserNotFound


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against."""

    user_id: int
    role: str
    token_version: int
    password_hash: str
    disabled: bool


@read_transaction
def find_credentials(session: Session, email: str) -> Credentials | None:
    """The credentials of an e-mail address, in whatever case it was typed."""
    user = session.scalar(select(User).where(User.email == email.lower()))
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
def require_current(session: Session, caller: Caller) -> None:
    """``require_valid`` in a transaction of its own: for what staff read, and for answers that Redis has kept."""
    row = next(iter(_RECORD.rows(session, {"user_id": caller.user_id})), None)
    caller.require_still(None if row is None else _Record(*row))


class _Record(NamedTuple):
    """What a token's claims are compared with."""

    role: str
    token_version: int
    disabled_at: datetime | None


_OF_USER = select(User.role, User.token_version, User.disabled_at).where(
    User.id == bindparam("user_id", type_=User.id.type)
)
_RECORD = SingleStatement(_OF_USER)  # type: ignore[arg-type]  # whose rows are of any columns


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """Somebody who is to be able to log in; the password as its hash."""

    email: str
    name: str
    role: Role
    password_hash: str


@write_transaction
def add_user(session: Session, new: NewUser) -> User:
    """Add a user.

    Raises:
        UserExists: the e-mail address is taken (409).
    """
    inserted = insert_or_nothing(session, User).values(
        email=new.email.lower(),
        name=new.name,
        role=new.role.value,
        password_hash=new.password_hash,
        token_version=0,
        created_at=clock.now(),
    )
    inserted = inserted.on_conflict_do_nothing(index_elements=["email"]).returning(User.id)
    user_id = session.scalar(inserted)
    if user_id is None:
        raise UserExists
    return session.get_one(User, user_id)


@write_transaction
def disable_user(session: Session, email: str) -> User:
    """Let a user no longer log in, and end every token they have.

    Raises:
        UserNotFound: nobody has that e-mail address (404).
    """
    user = session.scalar(select(User).where(User.email == email.lower()).with_for_update())
    if user is None:
        raise UserNotFound
    user.disabled_at = user.disabled_at or clock.now()
    user.token_version += 1
    return user


@read_transaction
def get_user(session: Session, user_id: int) -> User:
    """A user who is known to be there."""
    return session.get_one(User, user_id)


def require_valid(session: Session, caller: Caller) -> User:
    """Check with the database what a token claims; part of every transaction that writes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
    """
    return caller.require_still(session.get(User, caller.user_id))

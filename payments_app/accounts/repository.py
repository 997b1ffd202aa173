"""Users, as the database knows them."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app.accounts.callers import Caller
from payments_app.accounts.models import User
from payments_app.database import read_transaction


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
    """``require_valid`` in a transaction of its own, for what staff read."""
    require_valid(session, caller)


def require_valid(session: Session, caller: Caller) -> User:
    """Check with the database what a token claims; part of every transaction that writes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
    """
    return caller.require_still(session.get(User, caller.user_id))

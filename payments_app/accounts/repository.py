"""Queries and changes of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import BindParameter, Select, bindparam, column, exists, literal_column, or_, select, table
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts import emails, names, passwords
from payments_app.accounts.caller import Caller, KeyRecord, LinkRecord
from payments_app.accounts.models import ApiKey, PaymentLink, Role, User
from payments_app.db.base import dialect_insert
from payments_app.db.errors import RetryTransaction
from payments_app.db.statement import DirectStatement
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.errors import UserExists, UserNotFound, ValidationFailed
from payments_app.i18n.messages import N_

S = TypeVar("S", bound=Select[Any])


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
        NotAuthenticated: the user was disabled or their tokens ended, or the link of a payer no longer stands (401).
    """
    if caller.link_id is not None:
        _require_link(session, caller, _LINK, changes=False)
    return caller.require_unchanged(session.get(User, caller.user_id))


@read_transaction
def check_valid(session: Session, caller: Caller) -> None:
    """``require_valid`` in its own transaction: for reads by staff, and for responses that come from Redis."""
    if caller.key_id is not None:
        _require_key(session, caller, _KEY)
        return
    row = next(iter(_RECORD.rows(session, {"user_id": caller.user_id})), None)
    caller.require_unchanged(None if row is None else UserState(*row))


@read_transaction
def check_link(session: Session, caller: Caller, *, changes: bool) -> None:
    """Ask of the database, in one statement, whether a payer's link and its patient still stand.

    Raises:
        NotAuthenticated: they do not (401).
        Forbidden: the link has expired and only shows the payment, and the request is not for reading alone (403).
    """
    _require_link(session, caller, _LINK, changes=changes)


def _require_link(session: Session, caller: Caller, statement: DirectStatement, *, changes: bool) -> None:
    asked = {"link_id": caller.link_id, "consultation_id": caller.consultation_id, "user_id": caller.user_id}
    row = next(iter(statement.rows(session, asked)), None)
    caller.require_link(None if row is None else LinkRecord(*row), now=clock.now(), changes=changes)


def _require_key(session: Session, caller: Caller, statement: DirectStatement) -> None:
    row = next(iter(statement.rows(session, {"key_id": caller.key_id})), None)
    caller.require_key(None if row is None else KeyRecord(*row), now=clock.now())


class UserState(NamedTuple):
    """The columns that a token's claims are compared with."""

    role: str
    token_version: int
    disabled_at: datetime | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> "UserState | None":
        """From the values of ``USER_STATE`` in an outer join; None: there is no such user."""
        return None if row[0] is None else cls(*row)


# The columns of ``UserState``, for statements that read more besides.
USER_STATE = (User.role, User.token_version, User.disabled_at)

_OF_USER = select(*USER_STATE).where(User.id == bindparam("user_id", type_=User.id.type))
_OF_KEY = (
    select(*USER_STATE, ApiKey.expires_at, ApiKey.revoked_at)
    .join_from(ApiKey, User, User.id == ApiKey.user_id)
    .where(ApiKey.id == bindparam("key_id", type_=ApiKey.id.type))
)
_KEY = DirectStatement(_OF_KEY)  # type: ignore[arg-type]  # typed for rows of any columns
# Locked for the same reason as a link's row below: after the response to a revocation, nothing of the key commits.
_LOCKED_KEY = DirectStatement(_OF_KEY.with_for_update(read=True, of=ApiKey))  # type: ignore[arg-type]  # the same
_RECORD = DirectStatement(_OF_USER)  # type: ignore[arg-type]  # typed for rows of any columns

# Named by string: consultations and payments are of rooms above, and know this one.
_CONSULTATIONS = table("consultations", column("id"), column("patient_id"))
_PAYMENTS = table("payments", column("consultation_id"), column("deleted_at"))


def select_link(*by: Any, more: tuple[Any, ...] = ()) -> Select[Any]:
    """Selects the columns of ``LinkRecord``, and ``more``, of the links that fit ``by``, each with its patient."""
    paid = exists().where(_PAYMENTS.c.consultation_id == PaymentLink.consultation_id, _PAYMENTS.c.deleted_at.is_(None))
    shown = (User.role, User.token_version, User.disabled_at, PaymentLink.expires_at, PaymentLink.revoked_at, paid)
    wanted: Select[Any] = select(*shown, *more)
    return (
        wanted.select_from(PaymentLink)
        .join(_CONSULTATIONS, _CONSULTATIONS.c.id == PaymentLink.consultation_id)
        .join(User, User.id == _CONSULTATIONS.c.patient_id)
        .where(*by)
    )


_OF_PAYER = select_link(
    PaymentLink.id == bindparam("link_id", type_=PaymentLink.id.type),
    PaymentLink.consultation_id == bindparam("consultation_id", type_=PaymentLink.consultation_id.type),
    User.id == bindparam("user_id", type_=User.id.type),
)
_LINK = DirectStatement(_OF_PAYER)
# Locked until the end of the transaction: whoever revokes the link or disables the patient waits for it, so that after
# their answer no transaction that was let in before has yet to commit.
_LOCKED_LINK = DirectStatement(_OF_PAYER.with_for_update(read=True, of=(PaymentLink, User)))


def by_email(email: str) -> Select[User]:
    """Selects the user with that e-mail address in any spelling.

    From before the normalization, two users may have one address in two spellings: each is found by their own spelling.
    """
    spelled = as_spelled_and_normalized(email)
    return _by_email(select(User), spelled["spelled_email"], spelled["normalized_email"])


def as_spelled_and_normalized(email: str) -> dict[str, str]:
    """The two forms in which a user may be stored under that address, by the names of ``ID_BY_EMAIL``'s parameters."""
    return {"spelled_email": emails.storable(email).lower(), "normalized_email": emails.normalized(email)}


def _by_email(wanted: S, spelled: str | BindParameter[str], normalized: str | BindParameter[str]) -> S:
    found = wanted.where(or_(User.normalized_email == normalized, User.email == spelled))
    # As a literal: a statement that is compiled once gets its parameters by name, and a limit has none.
    return found.order_by(User.email != spelled).limit(literal_column("1"))


# For statements that are compiled once: the id of the user whom ``by_email`` finds.
ID_BY_EMAIL = _by_email(
    select(User.id),
    bindparam("spelled_email", type_=User.email.type),
    bindparam("normalized_email", type_=User.email.type),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user to add. ``password_hash`` is ``passwords.NO_PASSWORD`` if no password is valid for them.

    ``language``: of the pages and messages that the user gets, such as ``en``; None if it is not known.
    """

    email: str
    name: str
    role: Role
    password_hash: str
    token_version: int = 0
    language: str | None = None


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
        language=new.language,
        created_at=clock.now(),
    )
    user_id: int | None = session.scalar(inserted.on_conflict_do_nothing().returning(User.id))
    return user_id


def find_or_add_patient(session: Session, *, email: str, name: str, language: str | None) -> User | None:
    """The patient who has that e-mail address; if nobody has it, a new one who cannot log in, for want of a password.

    None if a member of staff or a booking system has it. Of a patient who is there already, nothing changes.

    Raises:
        ValidationFailed: no e-mail address, or no name (422).
    """
    # The look decides nothing. It comes first because an older user may have the address in a spelling that no
    # constraint compares with this one.
    user = session.scalar(by_email(email))
    if user is None:
        new = NewUser(email=email, name=name, role=Role.PATIENT, password_hash=passwords.NO_PASSWORD, language=language)
        insert_user(session, new)
        user = session.scalars(by_email(email)).one()  # by this request, or by another that was first
    return user if user.role == Role.PATIENT and user.erased_at is None else None


def lock_patient(session: Session, user_id: int) -> None:
    """Let nobody erase the patient until the end of the transaction.

    Raises:
        RetryTransaction: the patient was erased since this transaction found them.
    """
    kept = select(User.id).where(User.id == user_id, User.erased_at.is_(None))
    if session.scalar(kept.with_for_update(read=True, key_share=True)) is None:
        raise RetryTransaction


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
    user.disable(clock.now())
    return user


@read_transaction
def find_user(session: Session, id_or_email: str) -> User:
    """The user with that id, or with that e-mail address in any spelling.

    Raises:
        UserNotFound: there is none (404).
    """
    user = session.scalar(_by_id_or_email(id_or_email))
    if user is None:
        raise UserNotFound
    return user


@read_transaction
def list_users(session: Session, *, role: str | None, before_id: int | None, size: int) -> Sequence[User]:
    """At most ``size`` users, newest first; only of that role, and with smaller ids than ``before_id``, if given."""
    wanted = select(User)
    if role is not None:
        wanted = wanted.where(User.role == role)
    if before_id is not None:
        wanted = wanted.where(User.id < before_id)
    return session.scalars(wanted.order_by(User.id.desc()).limit(size)).all()


@write_transaction
def enable_user(session: Session, id_or_email: str) -> User:
    """Let a disabled user log in again. Tokens from before stay invalid; API keys are valid again.

    Raises:
        UserNotFound: there is no such user, or their data were erased (404).
    """
    user = _get_changeable(session, id_or_email)
    user.disabled_at = None
    return user


@write_transaction
def set_password(session: Session, id_or_email: str, password_hash: str) -> User:
    """Replace the password and end all logins.

    Raises:
        UserNotFound: there is no such user, or their data were erased (404).
    """
    user = _get_changeable(session, id_or_email)
    user.password_hash = password_hash
    user.token_version += 1
    return user


@write_transaction
def set_email(session: Session, id_or_email: str, new_email: str) -> User:
    """Replace the e-mail address and end all logins.

    Raises:
        UserNotFound: there is no such user, or their data were erased (404).
        UserExists: another user has the address (409).
        ValidationFailed: it is not an e-mail address (422).
    """
    user = _get_changeable(session, id_or_email)
    email = emails.normalized(new_email)
    if not emails.is_address(email):
        raise ValidationFailed({"email": [N_("Not a valid e-mail address.")]})
    user.email = user.normalized_email = email
    user.token_version += 1
    session.flush()
    return user


def _get_changeable(session: Session, id_or_email: str) -> User:
    user = session.scalar(_by_id_or_email(id_or_email).with_for_update())
    if user is None or user.erased_at is not None:
        raise UserNotFound
    return user


def _by_id_or_email(id_or_email: str) -> Select[User]:
    # No address is all digits: it has an @.
    if id_or_email.isascii() and id_or_email.isdigit() and int(id_or_email) < 2**63:
        return select(User).where(User.id == int(id_or_email))
    return by_email(id_or_email)


@read_transaction
def users_without_normalized_email(session: Session, limit: int) -> Sequence[int]:
    """Ids of users who can log in with one spelling of their e-mail address only; at most ``limit``."""
    found = select(User.id).where(User.normalized_email.is_(None), User.disabled_at.is_(None))
    return session.scalars(found.order_by(User.id).limit(limit)).all()


@read_transaction
def get_user(session: Session, user_id: int) -> User:
    """A user who is known to exist."""
    return session.get_one(User, user_id)


def require_valid(session: Session, caller: Caller) -> None:
    """Compare the caller with the database; part of every transaction that writes.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended, the link of a payer no longer stands, or the API
            key was revoked or has expired (401).
        Forbidden: the user no longer has the role that the token names, or the link has expired (403).
    """
    if caller.is_user:
        caller.require_unchanged(session.get(User, caller.user_id))
    else:
        require_valid_credential(session, caller)


def require_valid_credential(session: Session, caller: Caller) -> None:
    """``require_valid`` for a payer and for a program; of a user, whom another statement of the transaction compares,
    it asks nothing.

    Raises:
        NotAuthenticated, Forbidden: as ``require_valid`` (401, 403).
    """
    if caller.link_id is not None:
        _require_link(session, caller, _LOCKED_LINK, changes=True)
    elif caller.key_id is not None:
        _require_key(session, caller, _LOCKED_KEY)

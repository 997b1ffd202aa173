"""Commands that manage users."""

import sys
from collections.abc import Iterator
from typing import Any

import click
from flask import current_app

from payments_app.accounts import auth, emails, passwords, repository, schemas
from payments_app.accounts.models import USER_ROLES, Role, User
from payments_app.accounts.repository import NewUser
from payments_app.accounts.system_user import SYSTEM_EMAIL
from payments_app.commands import CommandFailed, CommandGroup, json_option, say, show_facts, show_rows
from payments_app.errors import ValidationFailed

users = CommandGroup("users", help="Manage users: people and programs that may log in.")

MIN_PASSWORD_LENGTH = 12  # characters; for staff (NIST SP 800-63B asks for at least 8)

COLUMNS = ("id", "state", "role", "email", "name", "language", "created")

# Users read at a time.
PAGE = 100

_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, without a prompt."
)


@users.command("create")
@click.argument("email")
@click.option("--name", required=True, help="Display name.")
@click.option(
    "--role",
    type=click.Choice([str(role) for role in USER_ROLES]),
    default=str(Role.PATIENT),
    show_default=True,
    help="patient: pays. admin: staff, sees and refunds everything. booking: registers consultations, and reads those.",
)
@_password_stdin
@json_option
def create_user(email: str, name: str, role: str, password_stdin: bool, as_json: bool) -> None:
    """Add a user. Prompts for the password twice."""
    password = _read_password(email, from_stdin=password_stdin)
    new = NewUser(email=email, name=name, role=Role(role), password_hash=passwords.hash_password(password))
    user = repository.add_user(new)
    show_facts({"id": user.id, "email": user.email, "name": user.name, "role": user.role}, as_json=as_json)


@users.command("list")
@click.option("--role", type=click.Choice([str(role) for role in USER_ROLES]), help="Filter by role.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Maximum number of rows.")
@json_option
def list_users(role: str | None, limit: int, as_json: bool) -> None:
    """List users, newest first."""
    show_rows(COLUMNS, map(_row, _newest(role, limit)), as_json=as_json, nothing="no users")


@users.command("show")
@click.argument("user")
@json_option
def show_user(user: str, as_json: bool) -> None:
    """Show one user. USER is an id or an e-mail address, here and in the other commands."""
    show_facts(_row(repository.find_user(user)), as_json=as_json)


@users.command("disable")
@click.argument("email")
def disable_user(email: str) -> None:
    """Disable a user: no more logins, and all their tokens become invalid.

    Their payments stay. Disabling a user again changes nothing.
    """
    if emails.normalized(email) == SYSTEM_EMAIL:
        raise CommandFailed("The commands run as this user: it cannot be disabled.")
    user = repository.disable_user(email)
    say(f"{user.email} is disabled; all their tokens are invalid")


@users.command("enable")
@click.argument("user")
@json_option
def enable_user(user: str, as_json: bool) -> None:
    """Let a disabled user log in again, with the same password. Tokens from before stay invalid."""
    _require_person(user)
    show_facts(_row(repository.enable_user(user)), as_json=as_json)


@users.command("set-password")
@click.argument("user")
@_password_stdin
@json_option
def set_password(user: str, password_stdin: bool, as_json: bool) -> None:
    """Give a user a new password and end all their logins. Prompts for it twice. Their API keys stay valid."""
    email = _require_person(user).email
    password_hash = passwords.hash_password(_read_password(email, from_stdin=password_stdin))
    show_facts(_row(repository.set_password(user, password_hash)), as_json=as_json)


@users.command("set-email")
@click.argument("user")
@click.argument("new_email")
@json_option
def set_email(user: str, new_email: str, as_json: bool) -> None:
    """Give a user another e-mail address and end all their logins. Their API keys stay valid."""
    _require_person(user)
    show_facts(_row(repository.set_email(user, new_email)), as_json=as_json)


@users.command("token")
@click.argument("email")
def show_token(email: str) -> None:
    """Print a bearer token for a user, such as the booking system; valid for ACCESS_TOKEN_TTL seconds."""
    credentials = repository.find_credentials(email)
    if credentials is None or emails.normalized(email) == SYSTEM_EMAIL:
        raise CommandFailed(f"No user has the e-mail address {email}.")
    if credentials.disabled:
        raise CommandFailed(f"{email} is disabled.")
    say(auth.issue(credentials))
    say(f"valid for {current_app.config['SETTINGS'].access_token_ttl_seconds} seconds", err=True)


def _read_password(email: str, *, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < MIN_PASSWORD_LENGTH:
        raise CommandFailed(f"The password must have at least {MIN_PASSWORD_LENGTH} characters.")
    if errors := schemas.Login().validate({"email": email, "password": password}):
        raise ValidationFailed(errors)  # no login would accept these values
    return str(password)


def _require_person(id_or_email: str) -> User:
    """The user, if somebody may log in as them."""
    user = repository.find_user(id_or_email)
    if user.email == SYSTEM_EMAIL:
        raise CommandFailed("The commands run as this user: nobody can log in as it.")
    if user.erased_at is not None:
        raise CommandFailed(f"The data of user {user.id} were erased, which cannot be undone.")
    return user


def _newest(role: str | None, limit: int) -> Iterator[User]:
    before_id: int | None = None
    while limit > 0:
        batch = repository.list_users(role=role, before_id=before_id, size=min(limit, PAGE))
        if not batch:
            return
        yield from batch
        limit -= len(batch)
        before_id = batch[-1].id


def _row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "state": "erased" if user.erased_at else "disabled" if user.disabled_at else "enabled",
        "role": user.role,
        "email": user.email,
        "name": user.name,
        "language": user.language,
        "created": user.created_at,
    }

"""Commands that manage users."""

import sys

import click
from flask import current_app

from payments_app.accounts import auth, emails, passwords, repository, schemas
from payments_app.accounts.models import USER_ROLES, Role
from payments_app.accounts.repository import NewUser
from payments_app.accounts.system_user import SYSTEM_EMAIL
from payments_app.commands import CommandFailed, CommandGroup, json_option, say, show_facts
from payments_app.errors import ValidationFailed

users = CommandGroup("users", help="Manage users: people and programs that may log in.")

MIN_PASSWORD_LENGTH = 12  # characters; for staff (NIST SP 800-63B asks for at least 8)


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
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, without a prompt.")
@json_option
def create_user(email: str, name: str, role: str, password_stdin: bool, as_json: bool) -> None:
    """Add a user. Prompts for the password twice."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < MIN_PASSWORD_LENGTH:
        raise CommandFailed(f"The password must have at least {MIN_PASSWORD_LENGTH} characters.")
    if errors := schemas.Login().validate({"email": email, "password": password}):
        raise ValidationFailed(errors)  # no login would accept these values
    new = NewUser(email=email, name=name, role=Role(role), password_hash=passwords.hash_password(password))
    user = repository.add_user(new)
    show_facts({"id": user.id, "email": user.email, "name": user.name, "role": user.role}, as_json=as_json)


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

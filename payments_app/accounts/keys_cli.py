"""Commands that manage API keys."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click

from payments_app import clock
from payments_app.accounts import api_keys, emails
from payments_app.accounts.api_keys import NewKey
from payments_app.accounts.models import ApiKey, Scope
from payments_app.accounts.system_user import SYSTEM_EMAIL
from payments_app.commands import (
    ID,
    CommandFailed,
    CommandGroup,
    json_option,
    operator,
    quantity,
    say,
    show_facts,
    show_rows,
)
from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_

keys = CommandGroup("keys", help="Manage API keys, by which programs act as a user.")

COLUMNS = ("id", "state", "name", "user", "prefix", "scopes", "created_at", "expires_at", "last_used_at")

# Keys read at a time.
PAGE = 100

# Characters that the column holds.
MAX_NAME_LENGTH = 64

# Hours in which to put the new key everywhere, by default: one working day and the night after it.
DEFAULT_OVERLAP_HOURS = 24

# Hours and days that the options take at most: a year, and ten years, so that no date overflows.
_MAX_OVERLAP_HOURS = 8_760
_MAX_DAYS = 3_650


@keys.command("create")
@click.argument("name")
@click.option("--user", "email", required=True, help="E-mail address of the user as whom the key acts.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="What the key may be used for; several times for several scopes.",
)
@click.option("--expires", "days", type=click.IntRange(1, _MAX_DAYS), help="Days until it ends; without: never.")
@json_option
def create_key(name: str, email: str, scopes: tuple[str, ...], days: int | None, as_json: bool) -> None:
    """Make an API key and print it: it is shown only this once. NAME says in lists what it is for."""
    if not (0 < len(name) <= MAX_NAME_LENGTH and name.isprintable()):
        text = N_("Must have 1 to 64 characters, and no control characters.")
        raise ValidationFailed({"NAME": [text]})
    if emails.normalized(email) == SYSTEM_EMAIL:
        raise CommandFailed("The commands run as this user: it has no API keys.")
    new = NewKey(
        name=name,
        scopes=[Scope(scope) for scope in scopes],
        lifetime=None if days is None else timedelta(days=days),
        created_by=operator(),
    )
    _show_new(*api_keys.create(new, email=email), as_json=as_json)


@keys.command("list")
@click.option("--user", "email", help="Only keys of the user with this e-mail address.")
@json_option
def list_keys(email: str | None, as_json: bool) -> None:
    """Show API keys, newest first, expired and revoked ones too; of the keys themselves only the beginning."""
    show_rows(COLUMNS, _rows(email), as_json=as_json, nothing="no API keys")


@keys.command("revoke")
@click.argument("key_id", type=ID)
def revoke_key(key_id: int) -> None:
    """End an API key at once; again, it has no effect."""
    key = api_keys.revoke(key_id, actor=operator())
    say(f"API key {key.id} ({key.name}) is revoked")


@keys.command("rotate")
@click.argument("key_id", type=ID)
@click.option(
    "--overlap",
    "hours",
    type=click.IntRange(0, _MAX_OVERLAP_HOURS),
    default=DEFAULT_OVERLAP_HOURS,
    show_default=True,
    help="Hours for which the old key stays valid.",
)
@json_option
def rotate_key(key_id: int, hours: int, as_json: bool) -> None:
    """Replace an API key by a new one with the same name, scopes and lifetime, and print the new one."""
    made = api_keys.rotate(key_id, overlap=timedelta(hours=hours), created_by=operator())
    _show_new(*made, as_json=as_json)
    say(f"API key {key_id} stays valid for {quantity(hours, 'hour')} at most", err=True)


def _show_new(row: ApiKey, key: str, *, as_json: bool) -> None:
    facts = {"id": row.id, "key": key, "scopes": row.scopes, "expires_at": row.expires_at}
    show_facts(facts, as_json=as_json)


def _rows(email: str | None) -> Iterator[dict[str, Any]]:
    before_id, has_more = None, True
    while has_more:
        page = api_keys.list_page(email=email, before_id=before_id, per_page=PAGE)
        for key, user_email in page.rows:
            more = {"state": api_keys.state_of(key, clock.now()), "user": user_email}
            yield {name: more[name] if name in more else getattr(key, name) for name in COLUMNS}
        before_id, has_more = page.rows[-1][0].id if page.rows else None, page.has_more

"""Payment links, from the command line."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click
from flask import current_app

from payments_app import clock
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import PaymentLink
from payments_app.accounts.system_user import system_caller
from payments_app.commands import ID, CommandFailed, CommandGroup, json_option, say, show_facts, show_rows
from payments_app.errors import ValidationFailed
from payments_app.payment_links import address, repository, schemas
from payments_app.payment_links.repository import NewLink

links = CommandGroup("links", help="Links by which patients pay without a password.")

COLUMNS = ("id", "state", "created_at", "expires_at", "revoked_at", "return_url")

# Links read at a time.
PAGE = 100


@links.command("create")
@click.argument("consultation_id", type=ID)
@click.option(
    "--expires-in",
    "days",
    type=click.IntRange(1, schemas.MOST_LIFETIME // 86_400),
    default=schemas.DEFAULT_LIFETIME // 86_400,
    show_default=True,
    help="Days until nobody can pay by it any more.",
)
@click.option("--return-url", help="Where its page leads the patient on to; its origin is in RETURN_URL_ORIGINS.")
@json_option
def create_link(consultation_id: int, days: int, return_url: str | None, as_json: bool) -> None:
    """Make a link by which a patient pays this consultation, and print it: it is shown only this once."""
    caller = system_caller()
    base = current_app.config["SETTINGS"].public_url
    if base is None:
        raise CommandFailed("PUBLIC_URL is not set: links begin with it, such as https://pay.example.org.")
    if errors := schemas.PaymentLinkCreate().validate({"return_url": return_url}):
        raise ValidationFailed(errors)
    new = NewLink(consultation_id=consultation_id, return_url=return_url, lifetime=timedelta(days=days))
    link, token = repository.create(new, caller=caller)
    facts = {"id": link.id, "url": address.of_token(base, token), "expires_at": link.expires_at}
    show_facts(facts, as_json=as_json)


@links.command("list")
@click.argument("consultation_id", type=ID)
@json_option
def list_links(consultation_id: int, as_json: bool) -> None:
    """Show the links of a consultation without their addresses, newest first."""
    rows = map(_row, _all_of(consultation_id, system_caller()))
    show_rows(COLUMNS, rows, as_json=as_json, nothing="no links")


@links.command("revoke")
@click.argument("consultation_id", type=ID)
@click.argument("link_id", type=ID)
def revoke_link(consultation_id: int, link_id: int) -> None:
    """End a link, and what was opened by it; again, it has no effect."""
    repository.revoke(consultation_id, link_id, caller=system_caller())
    say(f"link {link_id} of consultation {consultation_id} is revoked")


def _all_of(consultation_id: int, caller: Caller) -> Iterator[PaymentLink]:
    before_id, has_more = None, True
    while has_more:
        page = repository.list_page(consultation_id, caller=caller, before_id=before_id, per_page=PAGE)
        yield from page.rows
        before_id, has_more = page.rows[-1].id if page.rows else None, page.has_more


def _row(link: PaymentLink) -> dict[str, Any]:
    state = repository.state_of(link, clock.now())
    return {"state": state, **{name: getattr(link, name) for name in COLUMNS if name != "state"}}

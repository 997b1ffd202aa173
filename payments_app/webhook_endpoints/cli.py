"""Webhook endpoints from the command line, and their sender."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
from flask import current_app
from marshmallow import Schema

from payments_app import clock
from payments_app.accounts.system_user import system_caller
from payments_app.api.fields import errors_by_field
from payments_app.commands import ID, CommandGroup, json_option, say, say_json, show_facts, show_rows
from payments_app.errors import ValidationFailed
from payments_app.webhook_endpoints import repository, schemas
from payments_app.webhook_endpoints.models import ALL_TYPES, DeliveryStatus
from payments_app.webhook_endpoints.repository import DeliveryFilter, NewEndpoint
from payments_app.webhook_endpoints.sender import Sender

webhooks = CommandGroup(
    "webhooks", has_time_limits=True, help="Other systems that are told of events, and the sender that tells them."
)

COLUMNS = (
    *("id", "is_enabled", "url", "types", "description", "created_by"),
    *("last_delivered_at", "failing_since", "disabled_reason"),
)
DELIVERY_COLUMNS = (
    "id",
    "status",
    "type",
    "position",
    "attempts",
    "next_attempt_at",
    "last_status_code",
    "last_error",
    "delivered_at",
    "webhook_id",
)

# Rows read at a time.
PAGE = 100

# Seconds between two lines of progress.
PROGRESS_EVERY_SECONDS = 5.0


@webhooks.command("create")
@click.argument("url")
@click.option("--types", default=ALL_TYPES, show_default=True, help="Names of events, with commas between them.")
@click.option("--description", help="What is behind it, for lists.")
@json_option
def create_endpoint(url: str, types: str, description: str | None, as_json: bool) -> None:
    """Have events sent to URL from now on, and print the secret that verifies them: it is shown only this once."""
    given = {"url": url, "types": types.split(","), "description": description}
    body = _checked(schemas.WebhookEndpointCreate(), given)
    made = repository.create(NewEndpoint(**body), caller=system_caller())
    show_facts({"id": made.id, "url": made.url, "types": made.types, "secret": made.secret}, as_json=as_json)


@webhooks.command("list")
@json_option
def list_endpoints(as_json: bool) -> None:
    """Show webhook endpoints, newest first, without their secrets."""
    show_rows(COLUMNS, _endpoints(), as_json=as_json, nothing="no webhook endpoints")


@webhooks.command("change")
@click.argument("endpoint_id", type=ID)
@click.option("--url", help="Another URL.")
@click.option("--types", help="Names of events, with commas between them; * for all.")
@click.option("--description", help="Another description.")
def change_endpoint(endpoint_id: int, url: str | None, types: str | None, description: str | None) -> None:
    """Change a webhook endpoint; attempts that begin afterwards follow it."""
    given = {"url": url, "types": None if types is None else types.split(","), "description": description}
    changes = {name: value for name, value in given.items() if value is not None}
    body = _checked(schemas.WebhookEndpointPatch(), changes)
    endpoint = repository.change(endpoint_id, body, caller=system_caller())
    say(f"webhook endpoint {endpoint_id} is up to date: {endpoint.url}")


@webhooks.command("enable")
@click.argument("endpoint_id", type=ID)
def enable_endpoint(endpoint_id: int) -> None:
    """Send to a webhook endpoint again: events that get a position from now on."""
    repository.change(endpoint_id, {"is_enabled": True}, caller=system_caller())
    say(f"webhook endpoint {endpoint_id} is enabled")


@webhooks.command("disable")
@click.argument("endpoint_id", type=ID)
def disable_endpoint(endpoint_id: int) -> None:
    """Send nothing more to a webhook endpoint; what was not delivered is given up."""
    repository.change(endpoint_id, {"is_enabled": False}, caller=system_caller())
    say(f"webhook endpoint {endpoint_id} is disabled")


@webhooks.command("delete")
@click.argument("endpoint_id", type=ID)
def delete_endpoint(endpoint_id: int) -> None:
    """Delete a webhook endpoint with its deliveries."""
    repository.delete(endpoint_id, caller=system_caller())
    say(f"webhook endpoint {endpoint_id} is deleted")


@webhooks.command("rotate-secret")
@click.argument("endpoint_id", type=ID)
@click.option(
    "--overlap",
    "seconds",
    type=click.IntRange(0, schemas.MOST_OVERLAP),
    default=schemas.DEFAULT_OVERLAP,
    show_default=True,
    help="Seconds for which the old secret signs too.",
)
@json_option
def rotate_secret(endpoint_id: int, seconds: int, as_json: bool) -> None:
    """Replace an endpoint's secret by a new one, and print it: it is shown only this once."""
    made = repository.rotate_secret(endpoint_id, overlap=timedelta(seconds=seconds), caller=system_caller())
    facts = {"id": made.id, "secret": made.secret, "previous_secret_ends_at": made.previous_secret_ends_at}
    show_facts(facts, as_json=as_json)


@webhooks.command("ping")
@click.argument("endpoint_id", type=ID)
def ping_endpoint(endpoint_id: int) -> None:
    """Have the sender send a ping to an endpoint."""
    ping = repository.ping(endpoint_id, caller=system_caller())
    say(f"ping {ping.delivery.id} is sent soon; `webhooks deliveries {endpoint_id}` shows what came of it")


@webhooks.command("deliveries")
@click.argument("endpoint_id", type=ID)
@click.option("--status", type=click.Choice([str(status) for status in DeliveryStatus]), help="Filter by status.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at the most.")
@json_option
def list_deliveries(endpoint_id: int, status: str | None, limit: int, as_json: bool) -> None:
    """Show deliveries to an endpoint, newest first."""
    rows = _deliveries(endpoint_id, status, limit)
    show_rows(DELIVERY_COLUMNS, rows, as_json=as_json, nothing="no deliveries")


@webhooks.command("retry")
@click.argument("endpoint_id", type=ID)
@click.argument("delivery_id", type=ID)
def retry_delivery(endpoint_id: int, delivery_id: int) -> None:
    """Have a delivery sent again at once, also one that was given up or delivered."""
    repository.retry(endpoint_id, delivery_id, caller=system_caller())
    say(f"delivery {delivery_id} is sent soon")


@webhooks.command("send")
@click.option("--once", "is_single_pass", is_flag=True, help="Send all that is due, and end.")
@json_option
def send(is_single_pass: bool, as_json: bool) -> None:
    """Send events to webhook endpoints until stopped (Ctrl-C or SIGTERM); several may do so at once.

    It ends when the attempts that have begun are over: within ten seconds.
    """
    sender = Sender(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001  # for its threads
    with _stopped_by_signals(sender), _progress(sender):
        if is_single_pass:
            sender.run_once()
        else:
            sender.run()
    if is_single_pass and as_json:
        say_json({"delivered": sender.counts["delivered"], "failed": sender.counts["failed"]})
    elif is_single_pass:
        say(_told(sender))


@contextmanager
def _stopped_by_signals(sender: Sender) -> Iterator[None]:
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: sender.stop()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _progress(sender: Sender) -> Iterator[None]:
    """In a terminal a line now and then, if something was sent meanwhile."""
    if not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()

    def show() -> None:
        shown = ""
        while not is_over.wait(PROGRESS_EVERY_SECONDS):
            if (line := _told(sender)) != shown:
                say(line, err=True)
                shown = line

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    say("sends webhooks; Ctrl-C ends it", err=True)
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _told(sender: Sender) -> str:
    return f"webhooks: {sender.counts['delivered']} delivered, {sender.counts['failed']} failed"


def _checked(schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
    """The members as those of a request are checked.

    Raises:
        ValidationFailed: one of them is not usable (422).
    """
    if errors := schema.validate(given):
        raise ValidationFailed(errors_by_field(errors))
    loaded: dict[str, Any] = schema.load(given)
    return loaded


def _endpoints() -> Iterator[dict[str, Any]]:
    before_id, has_more, now = None, True, clock.now()
    while has_more:
        page = repository.list_page(before_id=before_id, per_page=PAGE)
        for endpoint in page.rows:
            shown = schemas.render_endpoint(endpoint, now=now)
            yield {name: " ".join(shown[name]) if name == "types" else getattr(endpoint, name) for name in COLUMNS}
        before_id, has_more = page.rows[-1].id if page.rows else None, page.has_more


def _deliveries(endpoint_id: int, status: str | None, limit: int) -> Iterator[dict[str, Any]]:
    before_id: int | None = None
    while limit > 0:
        shown = DeliveryFilter(status=status, before_id=before_id, per_page=min(limit, PAGE))
        page = repository.list_deliveries(endpoint_id, shown)
        for each in page.rows:
            rendered = schemas.render_delivery(each)
            times = {
                name: None if rendered[name] is None else getattr(each.delivery, name)
                for name in ("next_attempt_at", "delivered_at")
            }
            yield {**{name: rendered[name] for name in DELIVERY_COLUMNS}, **times}
        limit -= len(page.rows)
        if not page.has_more:
            return
        before_id = page.rows[-1].delivery.id

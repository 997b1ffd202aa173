"""Webhook endpoints from the command line, and the sender as the process that it is."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import apps
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.warm_python import start_python
from tests.webhook_endpoints.conftest import PRIVATE, Webhooks


@pytest.fixture
def commands(database: Database, webhooks: Webhooks) -> Iterator[CommandRunner]:  # noqa: ARG001  # on an empty database
    with commands_on(database.url, **PRIVATE) as commands:
        yield commands


def test_an_endpoint_is_managed_and_sent_to(commands: CommandRunner, webhooks: Webhooks) -> None:
    url = webhooks.receiver.url("/a/ok")
    (made,) = commands.json(
        "webhooks", "create", url, "--types", "payment.created,payment.completed", "--description", "The site"
    )
    assert made["secret"].startswith("whsec_")
    endpoint_id = made["id"]
    commands.ok("webhooks", "ping", endpoint_id)
    webhooks.people.patient.pay(5)
    assert commands.json("webhooks", "send", "--once") == [{"delivered": 2, "failed": 0}]
    ping, created = webhooks.receiver.at("/a/ok")
    assert created.verify(made["secret"])["type"] == "payment.created"

    (event, shown_ping) = commands.json("webhooks", "deliveries", endpoint_id, "--status", "delivered", "--limit", 101)
    assert (event["webhook_id"], shown_ping["webhook_id"]) == (created.id, ping.id)
    assert (event["next_attempt_at"], event["delivered_at"] is None) == (None, False)
    commands.ok("webhooks", "retry", endpoint_id, event["id"])
    assert "1 delivered, 0 failed" in commands.ok("webhooks", "send", "--once")
    (rotated,) = commands.json("webhooks", "rotate-secret", endpoint_id, "--overlap", 0)
    assert rotated["secret"] != made["secret"]

    commands.ok("webhooks", "change", endpoint_id, "--url", webhooks.receiver.url("/b/ok"), "--types", "*")
    (listed,) = commands.json("webhooks", "list")
    assert (listed["url"], listed["types"], listed["description"]) == (webhooks.receiver.url("/b/ok"), "*", "The site")
    assert listed["created_by"].startswith("admin:")
    assert made["secret"] not in commands.ok("webhooks", "list")
    commands.ok("webhooks", "disable", endpoint_id)
    assert "disabled" in commands.refused("webhooks", "ping", endpoint_id)
    commands.ok("webhooks", "enable", endpoint_id)
    commands.ok("webhooks", "delete", endpoint_id)
    assert "no webhook endpoints" in commands.ok("webhooks", "list")


def test_what_is_wrong_is_one_line(commands: CommandRunner) -> None:
    assert "types" in commands.refused("webhooks", "create", "https://example.org/", "--types", "payment.invented")
    assert "url" in commands.refused("webhooks", "create", "example.org")
    assert "No such webhook endpoint" in commands.refused("webhooks", "change", 999, "--description", "x")
    assert "No such webhook endpoint" in commands.refused("webhooks", "deliveries", 999)


@on_postgresql
def test_a_sender_that_is_told_to_stop_ends_what_it_has_begun(
    webhooks: Webhooks, database: Database, tmp_path: Path
) -> None:
    endpoint_id, _ = webhooks.endpoint("/a/hang")
    environment = {**os.environ, **apps.testing(database.url, **PRIVATE)}
    command = ("flask", "--app", "wsgi", "webhooks", "send")
    sender = start_python(*command, environment=environment, output=tmp_path / "log")
    try:
        webhooks.people.patient.pay(5)
        webhooks.people.patient.pay(6)
        wait_until(lambda: len(webhooks.receiver.at("/a/hang")) == 1)
        sender.send_signal(signal.SIGTERM)
        webhooks.receiver.released.set()  # so that it fails now, and not only after ten seconds
        assert sender.wait(PATIENCE_SECONDS) == 0
    finally:
        sender.kill()
        sender.wait(PATIENCE_SECONDS)

    first, second = webhooks.deliveries(endpoint_id)
    assert (first["attempts"], first["last_error"], second["attempts"]) == (1, "no_connection", 0)
    assert (first["lease"], second["lease"]) == (None, None)  # nobody has to wait for them

"""``flask gateways check``: what a gateway really does, tried with a test key and a session that nobody can pay."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from payments_app.gateways.base import GatewayName
from tests.support.apps import app_with
from tests.support.commands import CommandRunner
from tests.support.databases import Database
from tests.support.fake_gateway import Mode
from tests.support.fake_stripe import FakeStripe
from tests.support.stripe_apps import fake_stripe, stripe_settings

GOOD = {"key": "ok", "webhooks": "ok", "open": "ok", "read": "ok", "repeat": "ok", "end": "ok"}


@pytest.fixture
def fake() -> Iterator[FakeStripe]:
    with fake_stripe() as fake:
        yield fake


def check(database: Database, fake: FakeStripe, *arguments: str, **settings: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings of the command."""
    with app_with(database.url, **stripe_settings(fake, **{"STRIPE_CHECKOUT": "hosted", **settings})) as app:
        result = CommandRunner(app).run("gateways", "check", "--gateway", "stripe", "--json", *arguments)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def verdicts(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["what"]: finding["verdict"] for finding in findings}


@pytest.mark.parametrize("way", ["hosted", "elements"])
def test_a_session_is_opened_read_repeated_and_ended(database: Database, fake: FakeStripe, way: str) -> None:
    exit_code, findings = check(database, fake, STRIPE_CHECKOUT=way)

    assert (exit_code, verdicts(findings)) == (0, GOOD)
    assert {finding["gateway"] for finding in findings} == {"stripe"}
    opened = list((fake.sessions if way == "hosted" else fake.intents).values())
    assert [(each["status"], each["metadata"]["payment_id"]) for each in opened] == [
        ("expired" if way == "hosted" else "canceled", "0")
    ]


def test_a_live_key_opens_nothing(database: Database, fake: FakeStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "api_key", "sk_live_fake")

    exit_code, findings = check(database, fake)

    assert (exit_code, verdicts(findings)) == (0, {"key": "ok", "webhooks": "ok", "open": "note"})
    assert fake.sessions == {}


def test_a_gateway_that_forgets_keys_is_seen_and_both_sessions_are_ended(
    database: Database, fake: FakeStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_once", lambda request, refusal=None: fake._do(request, refusal)[0])

    exit_code, findings = check(database, fake)

    assert (exit_code, verdicts(findings)) == (1, {**GOOD, "repeat": "bad"})
    assert [session["status"] for session in fake.sessions.values()] == ["expired"] * 2


@pytest.mark.parametrize(
    ("mode", "path", "bad"),
    [
        ("refuse", "/v1/checkout/sessions", "open"),
        ("drop", "/v1/checkout/sessions", "open"),
        ("error_before", "/v1/payment_intents", "key"),
    ],
)
def test_what_fails_is_bad_and_said(database: Database, fake: FakeStripe, mode: Mode, path: str, bad: str) -> None:
    for method in ("GET", "POST"):
        fake.misbehave(mode, method=method, path=path, times=None)

    exit_code, findings = check(database, fake)

    assert exit_code == 1
    assert (findings[-1]["what"], findings[-1]["verdict"]) == (bad, "bad")


def test_another_key_and_no_webhook_secret_are_bad(database: Database, fake: FakeStripe) -> None:
    exit_code, findings = check(database, fake, STRIPE_API_KEY="sk_test_somebody_elses")
    assert (exit_code, verdicts(findings)) == (1, {"key": "bad"})
    assert "somebody" not in str(findings)

    exit_code, findings = check(database, fake, STRIPE_WEBHOOK_SECRET="")
    assert (exit_code, verdicts(findings)) == (1, {**GOOD, "webhooks": "bad"})


def test_capabilities_that_do_not_hold_are_noted(
    database: Database, fake: FakeStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app_with(database.url, **stripe_settings(fake)) as app:
        gateway = app.extensions["gateways"][GatewayName.STRIPE]
        monkeypatch.setattr(gateway, "capabilities", replace(gateway.capabilities, remembers_keys_seconds=None))
        lines = CommandRunner(app).ok("gateways", "check").splitlines()

    assert [line.split()[:3] for line in lines if "repeat" in line] == [["note", "stripe", "repeat"]]
    assert {line.split()[1] for line in lines} == {"manual", "sandbox", "stripe"}


def test_a_gateway_that_is_not_configured_is_refused(database: Database) -> None:
    with app_with(database.url) as app:
        refusal = CommandRunner(app).refused("gateways", "check", "--gateway", "stripe")

    assert refusal == "Error: stripe is not configured; these are: manual, sandbox."

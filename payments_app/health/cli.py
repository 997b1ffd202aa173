"""The commands ``check``, on all that this service stands on, and ``gateways check``, on what gateways really do."""

from dataclasses import asdict

import click
from flask import current_app
from flask.cli import with_appcontext

from payments_app.commands import Command, CommandFailed, CommandGroup, json_option, say, say_json
from payments_app.gateways.registry import configured_gateways
from payments_app.health.diagnostics import Severity, all_diagnostics
from payments_app.health.gateway_trial import try_gateway

gateways = CommandGroup("gateways", help="Try payment gateways.")


@click.command("check", cls=Command)
@json_option
@with_appcontext
def check(as_json: bool) -> None:
    """Check settings, database, migrations, the constraints that keep payments single, Redis, gateways and clocks.

    One line per check: ok, note (it works, but an operator should know) or bad. Exits with 1 if anything is bad.
    """
    is_bad = False
    for diagnostic in all_diagnostics(current_app.config["SETTINGS"]):  # shown one by one: some take a while
        is_bad = is_bad or diagnostic.verdict is Severity.BAD
        if as_json:
            say_json(asdict(diagnostic))
        else:
            say(f"{diagnostic.verdict:<4}  {diagnostic.what:<11}  {diagnostic.detail}")
    raise SystemExit(1 if is_bad else 0)


@gateways.command("check")
@click.option("--gateway", "name", help="Only this gateway, such as stripe.")
@json_option
def check_gateways(name: str | None, as_json: bool) -> None:
    """Try each gateway: its key, its mode, the webhook secret, and what it does with a session.

    With a test key a session is opened, read, opened again with the same key, and ended: nothing can be paid by it.
    With a live key none is opened. Exits with 1 if anything is bad.
    """
    configured = configured_gateways()
    if name is not None and name not in configured:
        raise CommandFailed(f"{name} is not configured; these are: {', '.join(map(str, configured))}.")
    is_bad = False
    for gateway in map(str, configured) if name is None else (name,):
        for finding in try_gateway(gateway, current_app.config["SETTINGS"]):  # shown one by one: some take a while
            is_bad = is_bad or finding.verdict is Severity.BAD
            if as_json:
                say_json({"gateway": gateway, **asdict(finding)})
            else:
                say(f"{finding.verdict:<4}  {gateway:<8}  {finding.what:<8}  {finding.detail}")
    raise SystemExit(1 if is_bad else 0)

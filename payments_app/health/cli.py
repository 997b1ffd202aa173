"""The command ``check``: diagnostics of settings, database, Redis, gateways and clocks."""

from dataclasses import asdict

import click
from flask import current_app
from flask.cli import with_appcontext

from payments_app.commands import Command, json_option, say, say_json
from payments_app.health.diagnostics import Severity, all_diagnostics


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

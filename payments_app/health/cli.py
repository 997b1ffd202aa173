"""``flask check``: is everything in place that this service stands on?"""

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

    Each is a line: ok, note (it works, but you should know) or bad. Exits with 1 if anything is bad.
    """
    is_bad = False
    for finding in all_diagnostics(current_app.config["SETTINGS"]):  # shown one by one: some take a while
        is_bad = is_bad or finding.verdict is Severity.BAD
        if as_json:
            say_json(asdict(finding))
        else:
            say(f"{finding.verdict:<4}  {finding.what:<11}  {finding.detail}")
    raise SystemExit(1 if is_bad else 0)

"""What all ``flask`` commands of ours have in common."""

from typing import Any

import click
from flask.cli import AppGroup, with_appcontext

from payments_app.engines import lift_statement_timeout
from payments_app.errors import AppError


class CommandFailed(click.ClickException):
    """Shown as one line. Exit 2, because 1 is a verdict: ``payments audit`` found something."""

    exit_code = 2


class Commands(AppGroup):
    """A group whose commands may take their time, and end in one plain line when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with_appcontext(lift_statement_timeout)()
            return super().invoke(ctx)
        except AppError as error:
            raise CommandFailed(error.message) from error

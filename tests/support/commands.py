"""Running ``flask`` commands as an operator does, in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from click.testing import Result
from flask import Flask

from tests.support.apps import app_with


@dataclass(frozen=True)
class CommandRunner:
    """Runs commands on a separate app, because commands lift the time limits of its connections."""

    app: Flask

    def run(self, *arguments: object, answer: str | None = None) -> Result:
        """Run a command; returns its output and exit code. ``answer`` is the input for its prompts."""
        return self.app.test_cli_runner().invoke(args=[str(argument) for argument in arguments], input=answer)

    def ok(self, *arguments: object, answer: str | None = None) -> str:
        """Run a command that has to succeed; returns its standard output."""
        result = self.run(*arguments, answer=answer)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        """The rows that a command prints with ``--json``."""
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def refused(self, *arguments: object, answer: str | None = None) -> str:
        """Run a command that has to exit with 2; returns its one line on standard error, and it prints nothing else."""
        result = self.run(*arguments, answer=answer)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.strip()


@contextmanager
def commands_on(database_url: str, **settings: str) -> Iterator[CommandRunner]:
    with app_with(database_url, **settings) as app:
        yield CommandRunner(app)

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
    """The commands of an app of their own: they lift the time limits of its connections."""

    app: Flask

    def run(self, *arguments: object, answer: str | None = None) -> Result:
        """Run one; what it prints and how it ends come back. ``response`` is typed when it asks."""
        return self.app.test_cli_runner().invoke(args=[str(argument) for argument in arguments], input=answer)

    def ok(self, *arguments: object, answer: str | None = None) -> str:
        """What one that succeeds prints on standard output."""
        result = self.run(*arguments, answer=answer)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        """The rows that one prints with ``--json``."""
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def refused(self, *arguments: object, answer: str | None = None) -> str:
        """The one line on standard error of one that ends with 2, and prints nothing else."""
        result = self.run(*arguments, answer=answer)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.strip()


@contextmanager
def commands_on(database_url: str, **settings: str) -> Iterator[CommandRunner]:
    with app_with(database_url, **settings) as app:
        yield CommandRunner(app)

"""Processes that do one operation of the service and are killed, as by ``kill -9``, at a step of it.

They are forked from a process that has made its app already, which is quicker than a start. Each has its own
connections and gateway client, so that only what was committed or sent is left of it.
"""

import http.client
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection as Pipe
from typing import Any, NoReturn

from flask import Flask
from sqlalchemy import Engine

from payments_app.gateways import registry
from payments_app.readiness import current_readiness
from tests.support.apps import app_with, engine_of
from tests.support.fresh_databases import engine_on
from tests.support.operations import Operation
from tests.support.rows import Rows
from tests.support.steps import Kind, Step, listening
from tests.support.waiting import PATIENCE_SECONDS, wait_until

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.kill_points"])


class When(Enum):
    BEFORE = "before"
    # The step was sent and its response is not read: the database or the gateway finishes it.
    SENT = "before-the-answer-to"


@dataclass(frozen=True)
class Point:
    """The step at which a process is killed: its number, counted from 0, and its text ``words``."""

    number: int
    when: When
    words: str

    def __str__(self) -> str:
        # Also as a key, which may have neither blanks nor commas.
        return f"{self.number}-{self.when.value}-{self.words}".replace(", ", "+").replace(" ", "-")


PRACTICE = "practice"
OPEN_TRANSACTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL"


def points(steps: list[Step], *, of_sqlite: bool = False) -> list[Point]:
    """Before each step; after it was sent and before its response, if that makes a difference; and at the end.

    "After a step" is the same as "before the next one": between two steps nothing happens that outlives the process.
    """
    before = [Point(number, When.BEFORE, str(step)) for number, step in enumerate(steps)]
    sent = [
        Point(number, When.SENT, str(step))
        for number, step in enumerate(steps)
        # SQLite has no server that would finish the statement of a dead process.
        if step.is_for_good and (step.kind is Kind.CALL or not of_sqlite)
    ]
    end = Point(len(steps), When.BEFORE, "answer")
    return sorted([*before, *sent, end], key=lambda point: (point.number, point.when.name))


class Doomed:
    """Does operations in processes that are killed before their end."""

    def __init__(self, pipe: Pipe, rows: Rows) -> None:
        self._pipe, self._rows = pipe, rows

    @classmethod
    @contextmanager
    def ready(cls, database_url: str, **settings: str) -> Iterator["Doomed"]:
        ours, theirs = _processes.Pipe()
        parent = _processes.Process(target=_serve, args=(theirs, database_url, settings))
        parent.start()
        try:
            with engine_on(database_url) as engine:
                yield cls(ours, Rows(engine))
        finally:
            ours.send(None)
            parent.join(PATIENCE_SECONDS)
            parent.close()

    def practise(self, operation: Operation) -> None:
        """Do it in the parent process, so that the forked ones need not compile all statements again."""
        self._pipe.send((operation, PRACTICE))
        assert self._pipe.poll(PATIENCE_SECONDS)
        self._pipe.recv()

    def watch(self, operation: Operation) -> list[Step]:
        """Do it undisturbed; returns its steps."""
        steps, exit_code = self._do(operation, None)
        assert exit_code == 0
        assert steps is not None
        return steps

    def kill(self, operation: Operation, point: Point) -> None:
        """Do it and kill the process at the point; fails if the point was not reached.

        Its transaction has ended then. A statement that commits itself may still be on its way.
        """
        _, exit_code = self._do(operation, point)
        assert exit_code == -signal.SIGKILL, f"it ended with {exit_code} and never came to: {point}"
        if not self._rows.is_sqlite:
            # The server may still be committing for the client that has died.
            wait_until(lambda: not self._rows.all(OPEN_TRANSACTIONS))

    def _do(self, operation: Operation, point: Point | None) -> tuple[list[Step] | None, int]:
        self._pipe.send((operation, point))
        assert self._pipe.poll(PATIENCE_SECONDS)
        answer: tuple[list[Step] | None, int] = self._pipe.recv()
        return answer


def _serve(pipe: Pipe, database_url: str, settings: dict[str, str]) -> None:
    """Fork a process for each operation, and send back its steps and exit code."""
    with app_with(database_url, **settings) as app:
        while (order := pipe.recv()) is not None:
            if order[1] == PRACTICE:
                _practise(app, order[0])
                pipe.send(None)
                continue
            theirs, ours = multiprocessing.Pipe(duplex=False)
            process_id = os.fork()
            if process_id == 0:
                operation, point = order
                _do(app, operation, point, ours)
            ours.close()
            try:
                steps = theirs.recv()
            except EOFError:  # killed
                steps = None
            _, status = os.waitpid(process_id, 0)
            pipe.send((steps, os.waitstatus_to_exitcode(status)))


def _practise(app: Flask, operation: Operation) -> None:
    operation.do(app)
    # Forked processes must not inherit connections, nor the result of the readiness check.
    engine_of(app).dispose()
    registry.init_app(app)
    with app.app_context():
        current_readiness().invalidate()


def _do(app: Flask, operation: Operation, point: Point | None, pipe: Pipe) -> NoReturn:
    steps: list[Step] = []

    def hear(step: Step, driver: Any) -> None:
        if point is not None and point.number == len(steps):
            assert point.words == str(step), f"{point.number} is {step} here, and was {point.words}"
            if point.when is When.BEFORE:
                _die()
            _die_once_sent(driver)
        steps.append(step)

    with listening(Engine, hear):
        operation.do(app)
    if point is not None and point.number == len(steps):
        _die()
    pipe.send(steps)
    os._exit(0)  # the parent's connections, files and exit handlers are the parent's


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: nobody survives that")


def _die_once_sent(driver: Any) -> None:
    if driver is None:
        get_response = http.client.HTTPConnection.getresponse

        def wait_and_die(client: http.client.HTTPConnection, *args: Any, **kwargs: Any) -> NoReturn:
            get_response(client, *args, **kwargs)  # its first line has arrived, so the gateway has done it
            _die()

        http.client.HTTPConnection.getresponse = wait_and_die  # type: ignore[method-assign,assignment]  # in this process only
        return

    def send_and_die(conversation: Iterator[Any], *_: Any, **__: Any) -> NoReturn:
        next(conversation)  # sends, without reading the response
        _die()

    driver.wait = send_and_die

"""A process that does one thing with the service and is killed, as by ``kill -9``, at a step that the test names.

It is forked from a clean one that has imported the service already, which is quicker than a start, and as real: an app,
connections and a gateway client of its own, and nothing of them left but what was committed or sent.
"""

import http.client
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flask import Flask
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.payments.events import Deed
from payments_app.refunds import process
from tests.support.apps import app_with
from tests.support.service import PATIENCE_SECONDS
from tests.support.statements import lone_statements

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.killed_at"])


class When(Enum):
    # Of the statement, or of the transaction that it is part of.
    BEFORE_THE_STATEMENT = "before"
    BEFORE_ITS_COMMIT = "before the commit of"
    AFTER_ITS_COMMIT = "after the commit of"
    # Of the call to the gateway: it was applied there, and nobody has read the answer.
    ANSWERED = "answered"


@dataclass(frozen=True)
class Step:
    """A step of what the process does: by words of an SQL statement, or of a gateway's address."""

    when: When
    words: str

    def __str__(self) -> str:
        return f"{self.when.value} {self.words}".replace(" ", "-")


@dataclass(frozen=True)
class Request:
    """What a client asks of the service."""

    path: str
    body: bytes
    headers: dict[str, str]

    def do(self, app: Flask) -> None:
        app.test_client().post(f"/api/v1{self.path}", data=self.body, headers=self.headers)


@dataclass(frozen=True)
class Resume:
    """What the timer does about one refund."""

    refund_id: int

    def do(self, app: Flask) -> None:
        with app.app_context():
            process.resume(self.refund_id, lease_seconds=60, deed=Deed("killed", None, clock.now()))


def kill_at(step: Step, work: Request | Resume, database_url: str, **settings: str) -> None:
    """Do it in another process, which is killed at the step; it is an error if it never came there."""
    doomed = _processes.Process(target=_do, args=(step, work, database_url, settings))
    doomed.start()
    doomed.join(PATIENCE_SECONDS)
    assert doomed.exitcode == -signal.SIGKILL, f"it ended with {doomed.exitcode} and never came to: {step}"
    doomed.close()


def _do(step: Step, work: Request | Resume, database_url: str, settings: dict[str, str]) -> None:
    with app_with(database_url, **settings) as app, _dying_at(step):
        work.do(app)


@contextmanager
def _dying_at(step: Step) -> Iterator[None]:
    # Of the present transaction: the process has one thread, and so one transaction at a time.
    statements: list[str] = []

    def now(when: When) -> None:
        if step.when is when and any(step.words in statement for statement in statements):
            os.kill(os.getpid(), signal.SIGKILL)

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)
        now(When.BEFORE_THE_STATEMENT)

    def before_alone(_engine: Engine, statement: str, _values: Any) -> None:
        statements[:] = [statement]
        now(When.BEFORE_THE_STATEMENT)

    event.listen(Engine, "begin", lambda _connection: statements.clear())
    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", lambda _connection: now(When.BEFORE_ITS_COMMIT))
    event.listen(Session, "after_commit", lambda _session: now(When.AFTER_ITS_COMMIT))
    if step.when is When.ANSWERED:
        http.client.HTTPConnection.getresponse = _dying(step.words)  # type: ignore[method-assign]  # in this process only

    def after_alone(*_: Any) -> None:  # it has committed itself: there is no commit of ours to come before
        now(When.BEFORE_ITS_COMMIT)
        now(When.AFTER_ITS_COMMIT)

    with lone_statements(before=before_alone, after=after_alone):
        yield


def _dying(words: str) -> Callable[..., http.client.HTTPResponse]:
    get_response, request = http.client.HTTPConnection.getresponse, http.client.HTTPConnection.putrequest
    asked: list[str] = []

    def noting(connection: http.client.HTTPConnection, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        asked.append(f"{method} {url}")
        request(connection, method, url, *args, **kwargs)

    def dying(connection: http.client.HTTPConnection, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        response = get_response(connection, *args, **kwargs)  # its first line is here, so it has happened there
        if words in asked[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    http.client.HTTPConnection.putrequest = noting  # type: ignore[method-assign]  # in this process only
    return dying

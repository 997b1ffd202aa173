"""What every refusal owes its caller: the whole problem document; and the database: not one changed row."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, Self

from payments_app.api.problem_catalog import CATALOG
from tests.support.client import ApiResponse
from tests.support.message_catalog import is_in_catalogue
from tests.support.people import People
from tests.support.rows import EVERYTHING, Rows

Contents = dict[str, set[tuple[Any, ...]]]

MEMBERS = {"type", "title", "status", "detail", "instance", "message", "retryable", "request_id"}
# Text that would show strangers how the service is built.
INTERNALS = (
    "Traceback",
    'File "',
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    "sqlalchemy",
    "psycopg",
    "sqlite3",
    "/payments_app",
)


class ApiUnderTest:
    """People, their consultations, and a pending payment of the patient's, for tests whose requests are refused.

    Such requests change nothing, so that many tests share one.
    """

    def __init__(self, people: People, rows: Rows, pending_id: int) -> None:
        self.people = people
        self.pending_id = pending_id
        self._rows = rows
        self._contents = contents(rows)
        self._may_have_changed = False

    @classmethod
    def prepared(cls, people: People, rows: Rows) -> Self:
        created = people.patient.pay(5)
        assert created.status_code == 201, created.text
        return cls(people, rows, created.json["data"]["payment_id"])

    def is_unchanged(self) -> bool:
        """False if a refused request wrote something, or if another test emptied the database."""
        return not self._may_have_changed and self._rows.count("payments", "id = :id", id=self.pending_id) == 1

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        """Afterwards every row of every table is what it was when this was prepared."""
        self._may_have_changed = True
        yield
        _assert_equal(contents(self._rows), self._contents)
        self._may_have_changed = False


@contextmanager
def nothing_written(rows: Rows) -> Iterator[None]:
    """Afterwards every row of every table is what it was before."""
    before = contents(rows)
    yield
    _assert_equal(contents(rows), before)


def contents(rows: Rows) -> Contents:
    """All there is in the database, by the driver's cursor: this is asked a thousand times."""
    with rows._engine.begin() as connection, closing(connection.connection.cursor()) as cursor:
        if rows.is_sqlite:
            return {table: set(cursor.execute(f"SELECT * FROM {table}").fetchall()) for table in EVERYTHING}
        cursor.execute("; ".join(f"SELECT * FROM {table}" for table in EVERYTHING))  # in one round trip
        found = {}
        for table in EVERYTHING:
            found[table] = set(cursor.fetchall())
            cursor.nextset()
        return found


def _assert_equal(after: Contents, before: Contents) -> None:
    for table in EVERYTHING:
        assert len(after[table]) == len(before[table]), f"another number of {table}"
        assert after[table] == before[table], f"other {table}"


def assert_problem(answer: ApiResponse, status: int, *fields: str, code: str | None = None) -> None:
    """The answer is a complete problem document of ``status``; on 422 it names exactly ``fields``."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem = answer.json
    assert isinstance(problem, dict)
    assert set(problem) - {"errors", "data"} == MEMBERS, answer.text
    assert code is None or problem["type"].endswith(f"/{code}"), problem["type"]
    explained = CATALOG[problem["type"].removeprefix("/problems/")]
    assert (problem["title"], problem["status"], explained.status) == (explained.title, status, status)
    assert is_in_catalogue(problem["detail"]), problem["detail"]
    assert problem["message"] == problem["detail"]
    assert problem["instance"] == answer.request.path
    assert problem["retryable"] is False
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert ("errors" in problem) == (status == HTTPStatus.UNPROCESSABLE_ENTITY), answer.text
    _assert_errors(problem.get("errors", {}), fields)
    assert not [word for word in INTERNALS if word in answer.text], answer.text
    assert status != HTTPStatus.UNAUTHORIZED or answer.headers["WWW-Authenticate"] == "Bearer"


def _assert_errors(errors: dict[str, list[str]], fields: tuple[str, ...]) -> None:
    assert set(errors) == set(fields), errors
    for texts in errors.values():
        assert isinstance(texts, list), errors
        assert texts, errors
        assert all(isinstance(text, str) and is_in_catalogue(text) for text in texts), errors

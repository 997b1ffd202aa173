"""The environment of the measurements: its own PostgreSQL from a wheel, its databases, and a SQLite file.

Only the number of connections is tuned. ``fsync`` and ``synchronous_commit`` are on, as by default: in every case, what
a response has confirmed survives a power cut.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import click
import psycopg
from sqlalchemy import create_engine, make_url, text

from payments_app.accounts.models import Role
from tests.support.apps import PRODUCTION, app_with
from tests.support.databases import make_sqlite
from tests.support.own_server import OwnServer, own_postgresql
from tests.support.people import People, Person
from tests.support.rows import MADE_TOGETHER

MILLION = 1_000_000

# The secrets with which the services sign tokens and cursors.
SECRETS = {name: PRODUCTION[name] for name in ("SECRET_KEY", "JWT_SECRET_KEY")}

# Unpaid consultations: the newest ones, as in production. More than the fastest case pays in a measurement.
FIRST_UNPAID = MILLION + 1
UNPAID = 200_000

# The id of the first payment that ``Store.fill`` stores: above all that services make.
FIRST_STORED = 10 * MILLION

# Consultations per statement: few enough for the statement timeout on a busy machine.
AT_ONCE = 20_000

# Each service has as many connections as threads, and all services run at the same time.
MAX_CONNECTIONS = 300

SETTINGS_SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
)


@dataclass(frozen=True)
class Stored:
    """How payments that a measurement finds were made: their gateway, and whether they were paid.

    Those of Stripe that are unpaid have an open session, whose reference is ``reference_of`` their number.
    """

    method: str
    gateway: str
    status: str


@dataclass(frozen=True)
class Store:
    """A migrated database with a patient, an admin, and unpaid consultations."""

    url: str
    patient: Person
    admin: Person

    def clear(self) -> None:
        """Delete all payments; the consultations are unpaid again."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("TRUNCATE payments CASCADE"))
            else:
                for table in reversed(MADE_TOGETHER):
                    connection.execute(text(f"DELETE FROM {table}"))
        engine.dispose()

    def fill(self, stored: Stored, count: int, *, skip: int = 0) -> None:
        """Store so many payments of unpaid consultations, numbered from ``FIRST_STORED`` and ``FIRST_UNPAID``.

        ``skip``: the numbers that are left out at the beginning. PostgreSQL only.
        """
        script = Path(__file__).with_name("stored.sql").read_text()
        first = {"first": FIRST_STORED + skip, "first_consultation": FIRST_UNPAID + skip}
        values = {**first, "count": count, **vars(stored)}
        with psycopg.connect(_plain(self.url), autocommit=True) as connection:
            for statement in script.format(patient_id=self.patient.id, **values).rstrip().rstrip(";").split(";\n"):
                connection.execute(statement)

    def counts(self) -> set[int]:
        """The row counts of the five tables that a create inserts into: a single number if they agree."""
        return {self.column(f"SELECT count(*) FROM {table}")[0] for table in MADE_TOGETHER}

    def column(self, query: str) -> Sequence[Any]:
        """The first column of the query's result."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = connection.execute(text(query)).scalars().all()
        engine.dispose()
        return found


@dataclass(frozen=True)
class Environment:
    """The PostgreSQL server, and its database without payments."""

    server: OwnServer
    empty: Store

    @property
    def postgresql_pid(self) -> int:
        pid = self.server.server.get_pid()
        assert pid is not None  # noqa: S101  # for the type checker: it runs
        return pid

    @property
    def socket_folder(self) -> str:
        return str(self.server.server.get_postmaster_info().socket_dir)

    def binary(self, name: str) -> str:
        return str(Path(self.server.server.bin_path) / name)

    def settings(self) -> dict[str, str]:
        with psycopg.connect(_plain(self.empty.url)) as connection:
            return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS_SHOWN}  # type: ignore[index]


@contextmanager
def set_up() -> Iterator[Environment]:
    """Start PostgreSQL, with a database whose consultations are all unpaid."""
    with own_postgresql() as server:
        _configure(server)
        _add_sequences(server.url)
        with app_with(server.url, **SECRETS) as app:
            people = People(app)
            _add_consultations(people)
        _execute(server.url, "VACUUM ANALYZE")
        environment = Environment(server, Store(server.url, people.patient, people.admin))
        _require_durable(environment.settings())
        yield environment


@contextmanager
def sqlite_store() -> Iterator[Store]:
    with ExitStack() as stack:
        database = make_sqlite()
        stack.callback(database.close)
        with app_with(database.url, **SECRETS) as app:
            people = People(app)
            _add_consultations(people)
        yield Store(database.url, people.patient, people.admin)


def million_store(environment: Environment) -> Store:
    """A copy of the empty database, with a million payments of the last year."""
    elsewhere = make_url(environment.empty.url).set(database="template1").render_as_string()
    _execute(elsewhere, "CREATE DATABASE million TEMPLATE postgres")
    url = make_url(environment.empty.url).set(database="million").render_as_string()
    script = Path(__file__).with_name("million.sql").read_text().format(patient_id=environment.empty.patient.id)
    statements = script.rstrip().rstrip(";").split(";\n")
    with (
        psycopg.connect(_plain(url), autocommit=True) as connection,
        click.progressbar(statements, label="Loading a million payments", file=sys.stderr) as bar,
    ):
        for statement in bar:
            connection.execute(statement)
    _execute(url, "VACUUM ANALYZE")
    _execute(url, "CHECKPOINT")
    return replace(environment.empty, url=url)


def reference_of(payment_id: int) -> str:
    """The session of a stored payment at Stripe."""
    return f"pi_bench{payment_id}"


def _add_consultations(people: People) -> None:
    for first in range(FIRST_UNPAID, FIRST_UNPAID + UNPAID, AT_ONCE):
        people.add_consultations(Role.PATIENT, first, first + AT_ONCE - 1)
    people.add_consultations("other", FIRST_UNPAID + UNPAID, FIRST_UNPAID + UNPAID)


def _configure(server: OwnServer) -> None:
    _execute(server.url, f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
    server.stop()
    server.start()


def _require_durable(settings: Mapping[str, str]) -> None:
    """Require durable settings, which an environment variable may have changed: speed without them does not count."""
    lax = [name for name in ("fsync", "synchronous_commit", "full_page_writes") if settings[name] != "on"]
    if lax:
        raise SystemExit(f"PostgreSQL has {', '.join(lax)} switched off")


def _add_sequences(url: str) -> None:
    """Add sequences for the ids of the peers, as is usual. This service assigns its own ids and does not use them."""
    for table in ("payments", "invoices"):
        _execute(url, f"CREATE SEQUENCE {table}_id_seq")
        _execute(url, f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('{table}_id_seq')")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(statement)


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def run_pgbench(environment: Environment, *, clients: int, seconds: float) -> list[float]:
    """Run create.sql, prepared, each time for another consultation; returns the milliseconds of each transaction."""
    variables = {"n": 0, "first": FIRST_UNPAID, "clients": clients, "user_id": environment.empty.patient.id}
    with tempfile.TemporaryDirectory(prefix="bench-pgbench-") as folder:
        command = [
            *(environment.binary("pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2"),
            *(f"--time={ceil(seconds)}", f"--file={Path(__file__).with_name('create.sql')}"),
            *("--log", f"--log-prefix={folder}/log"),
            *(f"--define={name}={value}" for name, value in variables.items()),
            *("--host", environment.socket_folder, "--username=postgres", "postgres"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        # The third field of a line is the latency in microseconds.
        lines = [line for log in Path(folder).iterdir() for line in log.read_text().splitlines()]
        return [int(line.split()[2]) / 1000 for line in lines]

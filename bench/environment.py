"""What is measured stands on this: a PostgreSQL of its own from a wheel, its databases, and a SQLite file.

Nothing is tuned but the number of connections. ``fsync`` and ``synchronous_commit`` are on, as they are by default:
what was answered survives a power cut, in every case.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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

# What the services sign tokens and cursors with.
SECRETS = {name: PRODUCTION[name] for name in ("SECRET_KEY", "JWT_SECRET_KEY")}

# Consultations that nobody has paid yet: the newest, as in life. More than the quickest case pays in a measurement.
FIRST_UNPAID = MILLION + 1
UNPAID = 200_000

# Consultations that are added by one statement: within the statement timeout of a busy machine.
AT_ONCE = 20_000

# Each service keeps as many connections as it has threads, and all services are up together.
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
class Store:
    """A migrated database with a patient and unpaid consultations."""

    url: str
    patient: Person

    def clear(self) -> None:
        """Forget all payments; the consultations are unpaid again."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("TRUNCATE payments CASCADE"))
            else:
                for table in reversed(MADE_TOGETHER):
                    connection.execute(text(f"DELETE FROM {table}"))
        engine.dispose()

    def counts(self) -> set[int]:
        """How many rows there are of each of the five that are made together: one number, if all is well."""
        return {self.column(f"SELECT count(*) FROM {table}")[0] for table in MADE_TOGETHER}

    def column(self, query: str) -> Sequence[Any]:
        """The first column of what the query finds."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = connection.execute(text(query)).scalars().all()
        engine.dispose()
        return found


@dataclass(frozen=True)
class Stage:
    """The databases, and the server that all but the SQLite file are on."""

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
def set_up() -> Iterator[Stage]:
    """A server, and on it a database whose consultations are all unpaid."""
    with own_postgresql() as server:
        _configure(server)
        _add_sequences(server.url)
        with app_with(server.url, **SECRETS) as app:
            patient = _people(People(app))
        _execute(server.url, "VACUUM ANALYZE")
        stage = Stage(server, Store(server.url, patient))
        _require_durable(stage.settings())
        yield stage


@contextmanager
def sqlite_store() -> Iterator[Store]:
    with ExitStack() as stack:
        database = make_sqlite()
        stack.callback(database.close)
        with app_with(database.url, **SECRETS) as app:
            patient = _people(People(app))
        yield Store(database.url, patient)


def million_store(stage: Stage) -> Store:
    """A copy of the empty one, with a million payments of the last year."""
    elsewhere = make_url(stage.empty.url).set(database="template1").render_as_string()
    _execute(elsewhere, "CREATE DATABASE million TEMPLATE postgres")
    url = make_url(stage.empty.url).set(database="million").render_as_string()
    script = Path(__file__).with_name("million.sql").read_text().format(patient_id=stage.empty.patient.id)
    statements = script.rstrip().rstrip(";").split(";\n")
    with (
        psycopg.connect(_plain(url), autocommit=True) as connection,
        click.progressbar(statements, label="Loading a million payments", file=sys.stderr) as bar,
    ):
        for statement in bar:
            connection.execute(statement)
    _execute(url, "VACUUM ANALYZE")
    _execute(url, "CHECKPOINT")
    return Store(url, stage.empty.patient)


def _people(people: People) -> Person:
    for first in range(FIRST_UNPAID, FIRST_UNPAID + UNPAID, AT_ONCE):
        people.add_consultations(Role.PATIENT, first, first + AT_ONCE - 1)
    people.add_consultations("other", FIRST_UNPAID + UNPAID, FIRST_UNPAID + UNPAID)
    return people.patient


def _configure(server: OwnServer) -> None:
    _execute(server.url, f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
    server.stop()
    server.start()


def _require_durable(settings: Mapping[str, str]) -> None:
    """An environment variable may have said otherwise; quickness that a power cut undoes is none."""
    lax = [name for name in ("fsync", "synchronous_commit", "full_page_writes") if settings[name] != "on"]
    if lax:
        raise SystemExit(f"PostgreSQL has {', '.join(lax)} switched off")


def _add_sequences(url: str) -> None:
    """The peers take their ids from sequences, as is usual; this project gives its own, and never asks for these."""
    for table in ("payments", "invoices"):
        _execute(url, f"CREATE SEQUENCE {table}_id_seq")
        _execute(url, f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('{table}_id_seq')")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(statement)


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def run_pgbench(stage: Stage, *, clients: int, seconds: float) -> list[float]:
    """The statements of create.sql, prepared, each time on another consultation: milliseconds of every transaction."""
    variables = {"n": 0, "first": FIRST_UNPAID, "clients": clients, "user_id": stage.empty.patient.id}
    with tempfile.TemporaryDirectory(prefix="bench-pgbench-") as folder:
        command = [
            *(stage.binary("pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2"),
            *(f"--time={seconds:.0f}", f"--file={Path(__file__).with_name('create.sql')}"),
            *("--log", f"--log-prefix={folder}/log"),
            *(f"--define={name}={value}" for name, value in variables.items()),
            *("--host", stage.socket_folder, "--username=postgres", "postgres"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        # The third word of a line is microseconds.
        lines = [line for log in Path(folder).iterdir() for line in log.read_text().splitlines()]
        return [int(line.split()[2]) / 1000 for line in lines]

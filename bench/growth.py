"""Measures how tables and indexes grow when a million payments are confirmed: ``make bench-growth``.

See docs/performance.md. The UPDATEs are the service's own for a confirm, one transaction per payment (``growth.sql``).
Autovacuum is on, as by default. The results do not depend on the disk's speed, so commits do not wait for it.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psycopg

from bench.locking import row
from payments_app import clock
from tests.support.own_server import own_postgresql

RESULTS = Path(__file__).with_name("results")

# Concurrent connections.
CONFIRMERS = 2

# Payments between two steps of the progress bar.
AT_ONCE = 2_000

# Seconds to wait until PostgreSQL's statistics include all updates.
PATIENCE_SECONDS = 10

MEBIBYTE = 2**20

TABLES = ("payments", "invoices")

# Indexes of columns that a confirm changes: they grow, the others should not.
INDEXES_OF_CHANGED_COLUMNS = ("ix_payments_status_history", "uq_payments_transaction")

PAGE = 15
DEEP_PAGE = 60_000

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Updates:
    """PostgreSQL's statistics of one table; ``elsewhere``: updates whose new row version went to another page."""

    made: int
    hot: int
    elsewhere: int
    autovacuums: int


@dataclass(frozen=True)
class Goal:
    """A goal and the measured value."""

    label: str
    bound: str
    measured: float
    is_met: bool

    @classmethod
    def at_most(cls, label: str, bound: float, measured: float) -> "Goal":
        return cls(label, f"at most {bound:g}", measured, measured <= bound)

    @classmethod
    def at_least(cls, label: str, bound: float, measured: float) -> "Goal":
        return cls(label, f"at least {bound:g}", measured, measured >= bound)


@click.command()
@click.option("--payments", type=click.IntRange(AT_ONCE), default=1_000_000, show_default=True)
@click.option(
    "--fillfactor", type=click.IntRange(10, 100), help="Fillfactor of both tables; default: that of the migrations."
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Output folder.")
def main(payments: int, fillfactor: int | None, results: Path) -> None:
    """Load payments, confirm them all, and report the growth of tables and indexes."""
    click.echo("Starting PostgreSQL", err=True)
    started = time.monotonic()
    with own_postgresql() as server:
        url = server.url.replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            for table in TABLES if fillfactor else ():
                connection.execute(f"ALTER TABLE {table} SET (fillfactor = {fillfactor})")
            load(connection, payments)
            before = sizes(connection)
            confirm_all(url, payments)
            text = report(connection, before, fillfactor, payments, (time.monotonic() - started) / 60)
    click.echo(text)
    if fillfactor is None:
        results.mkdir(parents=True, exist_ok=True)
        file = results / f"{clock.now():%Y-%m-%d}-growth.md"
        file.write_text(text)
        click.echo(f"Written: {file}")


def load(connection: Connection, payments: int) -> None:
    statements = Path(__file__).with_suffix(".sql").read_text().format(payments=payments).split(";\n", maxsplit=6)
    with click.progressbar(statements, label=f"Loading {payments:,} payments", file=sys.stderr) as bar:
        for statement in bar:
            connection.execute(statement)
    connection.execute("RESET session_replication_role")
    connection.execute("VACUUM ANALYZE")
    connection.execute("SELECT pg_stat_reset()")


def confirm_all(url: str, payments: int) -> None:
    """Confirm all payments in random order, over several connections."""
    batches = range(1, payments + 1, AT_ONCE)
    with (
        click.progressbar(length=payments, label="Confirming them", file=sys.stderr) as bar,
        ThreadPoolExecutor(CONFIRMERS) as pool,
    ):
        for done in pool.map(lambda first: _confirm(url, first, payments), batches):
            bar.update(done)


def _confirm(url: str, first: int, payments: int) -> int:
    last = min(first + AT_ONCE - 1, payments)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(f"CALL confirm({first}, {last}, {payments})")
    return last - first + 1


def sizes(connection: Connection) -> dict[str, int]:
    """Bytes of both tables and of their indexes, each table before its indexes."""
    query = """
        SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
        WHERE coalesce(i.indrelid, c.oid) IN ('payments'::regclass, 'invoices'::regclass)
          AND c.relkind IN ('r', 'i')
        ORDER BY coalesce(i.indrelid, c.oid)::regclass::text DESC, c.relkind DESC, c.relname"""
    return dict(connection.execute(query).fetchall())


def updates(connection: Connection, table: str) -> Updates:
    query = """
        SELECT n_tup_upd, n_tup_hot_upd, n_tup_newpage_upd, autovacuum_count
        FROM pg_stat_user_tables WHERE relname = %s"""
    counted = connection.execute(query, [table]).fetchone()
    assert counted is not None  # noqa: S101  # for the type checker: both tables are there
    return Updates(*counted)


def all_updates(connection: Connection, payments: int) -> dict[str, Updates]:
    """The statistics of both tables, once they are complete: sessions report theirs a moment after they end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(updates(connection, table).made != payments for table in TABLES):
        if time.monotonic() > deadline:
            raise SystemExit("not every payment was confirmed, or PostgreSQL's statistics are incomplete")
        time.sleep(0.1)
    return {table: updates(connection, table) for table in TABLES}


def pages_read(connection: Connection, query: str) -> int:
    """The number of table and index pages that a query reads."""
    explained = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}").fetchone()
    assert explained is not None  # noqa: S101  # for the type checker: a plan is one row
    plan = explained[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def page_query(connection: Connection, page: int) -> str:
    """The service's query for a page of an admin's list: its rows, and one more."""
    last_before = connection.execute(
        "SELECT created_at, id FROM payments ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET %s",
        [PAGE * (page - 1) - 1],
    ).fetchone()
    assert last_before is not None  # noqa: S101  # there are enough payments
    return (
        "SELECT * FROM payments WHERE deleted_at IS NULL"
        f" AND (created_at, id) < ('{last_before[0].isoformat()}', {last_before[1]})"
        f" ORDER BY created_at DESC, id DESC LIMIT {PAGE + 1}"
    )


def report(
    connection: Connection, before: dict[str, int], fillfactor: int | None, payments: int, minutes: float
) -> str:
    after = sizes(connection)
    counted = all_updates(connection, payments)
    connection.execute("VACUUM ANALYZE")
    version = connection.execute("SHOW server_version").fetchone()
    parts = [
        f"# Growth, measured on {clock.now():%Y-%m-%d}",
        f"`python -m bench.growth --payments {payments}{f' --fillfactor {fillfactor}' if fillfactor else ''}`, in"
        f" {minutes:.0f} minutes: {payments:,} payments with their invoices, each"
        f" confirmed in a transaction of its own, in no order, {CONFIRMERS} at a time."
        f" PostgreSQL {version[0] if version else ''}, autovacuum on; fillfactor "
        + (f"{fillfactor} of both tables." if fillfactor else "as the migrations set it."),
        "## Goals",
        *_table(
            ["", "goal", "measured", "met"],
            [
                [goal.label, goal.bound, f"{goal.measured:.2f}".removesuffix(".00"), "yes" if goal.is_met else "no"]
                for goal in goals(connection, before, after, counted, payments)
            ],
        ),
        "## Updates",
        *_table(
            ["table", "updates", "HOT", "share", "to another page", "autovacuums"],
            [
                [
                    *(name, f"{one.made:,}", f"{one.hot:,}", f"{one.hot / one.made:.3f}"),
                    *(f"{one.elsewhere:,}", str(one.autovacuums)),
                ]
                for name, one in counted.items()
            ],
        ),
        "## Sizes, in MiB",
        *_table(
            ["", "before", "after", "ratio"],
            [
                [name, f"{size / MEBIBYTE:.1f}", f"{after[name] / MEBIBYTE:.1f}", f"{after[name] / max(size, 1):.2f}"]
                for name, size in before.items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def goals(
    connection: Connection, before: dict[str, int], after: dict[str, int], counted: dict[str, Updates], payments: int
) -> list[Goal]:
    grown = {name: after[name] / size for name, size in before.items() if size > MEBIBYTE}
    unchanged = [ratio for name, ratio in grown.items() if name not in (*TABLES, *INDEXES_OF_CHANGED_COLUMNS)]
    first, deep = (page_query(connection, page) for page in (2, min(DEEP_PAGE, payments // PAGE)))
    for query in (first, deep):  # once before: the first reader of a page sets hint bits
        connection.execute(query)
    in_review = "SELECT count(*) FROM payments WHERE needs_review"
    return [
        Goal.at_least("share of HOT updates, invoices", 0.9, counted["invoices"].hot / counted["invoices"].made),
        Goal.at_most("table payments, after to before", 1.2, grown["payments"]),
        Goal.at_most("table invoices, after to before", 1.1, grown["invoices"]),
        Goal.at_most("greatest growth of an index of unchanged columns", 1.1, max(unchanged, default=1.0)),
        Goal.at_most("pages read to count the payments in review", 5, pages_read(connection, in_review)),
        Goal.at_most(
            f"pages read for page {min(DEEP_PAGE, payments // PAGE):,}, more than for page 2",
            2,
            pages_read(connection, deep) - pages_read(connection, first),
        ),
    ]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [row(head[0], list(head[1:])), row("---", ["---:"] * (len(head) - 1))]
    return ["\n".join(rows + [row(cells[0], list(cells[1:])) for cells in body])]


if __name__ == "__main__":
    main()

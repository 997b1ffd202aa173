"""Checks that the live database still has the constraints and settings that prevent double charges.

Somebody may have altered them. Payments are accepted only while the database itself refuses a second payment, and
refunds above the received amount.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from payments_app.db.base import Base
from payments_app.db.encoding import encoding_fault
from payments_app.db.engine import MEANING_SETTINGS, STATEMENT_TIMEOUT_MS
from payments_app.db.transaction import read_transaction
from payments_app.payments.models.payment import ACTIVE_PREDICATE
from payments_app.payments.models.status import ACTIVE

INDEX = "uq_payments_active_consultation"

# The CHECKs of promise M3: as the migrations write them, and as PostgreSQL prints them; both without spaces.
CHECKS = {
    "ck_payments_refunds_within_received": (
        "refund_reserved_minor+refunded_minor<=received_minor",
        "((refund_reserved_minor+refunded_minor)<=received_minor)",
    ),
    "ck_payments_money_not_negative": (
        "received_minor>=0ANDrefund_reserved_minor>=0ANDrefunded_minor>=0",
        "((received_minor>=0)AND(refund_reserved_minor>=0)AND(refunded_minor>=0))",
    ),
}

# The index, by name. ``whole`` is False after a failed CREATE INDEX CONCURRENTLY. An indexed expression has no column
# name: it is empty in ``columns``. SQLite has the predicate only in the text of the CREATE statement.
_THE_INDEX = {
    "postgresql": text(
        """
        SELECT i.indisvalid AND i.indisready AND i.indislive AS whole, i.indisunique AS is_unique,
               ARRAY(SELECT coalesce(a.attname::text, '')
                     FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
                     LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                     WHERE k.position <= i.indnkeyatts ORDER BY k.position) AS columns,
               pg_get_expr(i.indpred, i.indrelid) AS predicate
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass('payments') AND c.relname = :name
        """
    ),
    "sqlite": text(
        """
        SELECT 1 AS whole, l."unique" AS is_unique,
               (SELECT group_concat(coalesce(k.name, '')) FROM pragma_index_info(l.name) AS k) AS columns,
               m.sql AS predicate
        FROM sqlite_master AS m JOIN pragma_index_list('payments') AS l ON l.name = m.name
        WHERE m.type = 'index' AND m.name = :name
        """
    ),
}

# NOT VALID: existing rows were never checked. NOT ENFORCED (PostgreSQL 18): new rows are not checked either. Older
# versions have no such column; read from JSON, a missing column is no error.
_POSTGRESQL_CHECKS = text(
    """
    SELECT c.conname AS name, pg_get_expr(c.conbin, c.conrelid) AS promise
    FROM pg_constraint c
    WHERE c.conrelid = to_regclass('payments') AND c.contype = 'c'
      AND c.convalidated AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true)
    """
)

_SQLITE_TABLE = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'payments'")

# The settings that a transaction must have, wherever they were set. The service sets some of them itself: without a
# pooler for the connection, behind one for each transaction. The others need a superuser, or cannot be changed after
# the database was created.
SESSION_VALUES: dict[str, Collection[str]] = {
    **{name: {value} for name, value in MEANING_SETTINGS.items()},
    "synchronous_commit": {"on", "remote_apply"},
    "session_replication_role": {"origin", "local"},  # a replica checks no foreign key
    "zero_damaged_pages": {"off"},
    "ignore_checksum_failure": {"off"},
}

_ENCODINGS = ("server_encoding", "client_encoding")

# PostgreSQL 17 and newer. A value below the statement timeout would end the connection during a statement.
_TRANSACTION_TIMEOUT = "transaction_timeout"

# One statement, because /readyz runs it often. ``schemas``: where the search_path finds our tables. ``elsewhere``: all
# schemas with a table named payments. ``first_schema``: a schema that is searched before pg_catalog may replace
# PostgreSQL's functions; the schema of temporary tables is skipped, because it cannot contain functions.
_SESSION = text(
    r"""
    WITH ours AS (SELECT c.oid, c.relnamespace::regnamespace::text AS schema, c.relname::text AS name
                  FROM unnest(CAST(:tables AS text[])) AS t (name) JOIN pg_class c ON c.oid = to_regclass(t.name))
    SELECT (SELECT json_object_agg(name, setting) FROM pg_settings
            WHERE name = ANY(CAST(:names AS text[]))) AS settings,
           (SELECT schema::text FROM unnest(current_schemas(true)) WITH ORDINALITY AS s (schema, position)
            WHERE schema NOT LIKE 'pg\_temp\_%' ORDER BY position LIMIT 1) AS first_schema,
           ARRAY(SELECT DISTINCT schema FROM ours ORDER BY schema) AS schemas,
           ARRAY(SELECT name FROM ours WHERE row_security_active(oid) ORDER BY name) AS filtered,
           ARRAY(SELECT relnamespace::regnamespace::text FROM pg_class
                 WHERE relname = 'payments' AND relkind IN ('r', 'p')) AS elsewhere,
           ARRAY(SELECT format('GRANT USAGE ON SCHEMA %s TO %I', relnamespace::regnamespace, current_user) FROM pg_class
                 WHERE relname = 'payments' AND relkind IN ('r', 'p')
                   AND NOT has_schema_privilege(relnamespace, 'USAGE')) AS closed
    """
)

# EXPLAIN only plans: it fails if ON CONFLICT does not find the index. SQLite compares the predicate as text.
_NAMES_THE_INDEX = text(
    "EXPLAIN INSERT INTO payments (id, consultation_id) VALUES (1, 1)"
    f" ON CONFLICT (consultation_id) WHERE {ACTIVE_PREDICATE} DO NOTHING"
)

# SQLite stores the CREATE statement as it was typed. This matches its comments, strings and quoted names.
_SQLITE_QUOTED = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|`[^`]*`|\[[^\]]*\]|"(?P<name>(?:[^"]|"")*)\"""", re.DOTALL
)
# A cast that PostgreSQL adds, such as ::character varying(32) or ::text[].
_CAST = re.compile(r"::[a-z ]+(\([0-9]+\))?(\[\])?")
# A set of statuses, as PostgreSQL prints it (= ANY) and as the migrations write it (IN), without spaces and brackets.
_STATUS_IN = re.compile(r"status(?:=ANYARRAY\[|IN)(?P<words>'[^']*'(?:,'[^']*')*)\]?", re.IGNORECASE)


@read_transaction
def is_read_only(session: Session) -> bool:
    """Whether the database is read-only.

    Raises:
        DatabaseUnavailable: it cannot be reached (503).
    """
    if _dialect(session) == "sqlite":
        session.execute(text("SELECT 1"))
        return False
    return bool(session.execute(text("SHOW transaction_read_only")).scalar_one() == "on")


@read_transaction
def server_time(session: Session) -> datetime | None:
    """The clock of the database server; None for SQLite, which runs on this machine."""
    if _dialect(session) == "sqlite":
        return None
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


@read_transaction
def session_faults(session: Session) -> Sequence[str]:
    """Settings of this connection, and faults of its search_path, that change the meaning of our statements.

    Empty for SQLite: its settings belong to the connection, and this service sets them.
    """
    if _dialect(session) == "sqlite":
        return []
    parameters = {"names": [*SESSION_VALUES, *_ENCODINGS, _TRANSACTION_TIMEOUT], "tables": [*Base.metadata.tables]}
    found = session.execute(_SESSION, parameters).mappings().one()
    return [*_wrong_settings(found["settings"]), *_wrong_schemas(found)]


def _wrong_settings(settings: Mapping[str, str]) -> Iterator[str]:
    if fault := encoding_fault(server=settings["server_encoding"], client=settings["client_encoding"]):
        yield fault
    for name, value in settings.items():
        if name in _ENCODINGS:
            continue
        if name == _TRANSACTION_TIMEOUT:
            if 0 < int(value) < STATEMENT_TIMEOUT_MS:
                yield f"{name} is {value} ms, less than a statement may take ({STATEMENT_TIMEOUT_MS})"
        elif value.partition(",")[0] not in SESSION_VALUES[name]:  # in "ISO, MDY" the second part only affects input
            yield f"{name} is {value}, not {' or '.join(sorted(SESSION_VALUES[name]))}"


def _wrong_schemas(found: RowMapping) -> Iterator[str]:
    if found["first_schema"] != "pg_catalog":
        yield f"search_path has {found['first_schema']} before pg_catalog"
    if len(found["schemas"]) > 1:
        yield f"search_path finds our tables in several schemas: {', '.join(found['schemas'])}"
    if not found["schemas"] and found["closed"]:
        yield f"the role may not use the schema of our tables: {' or '.join(found['closed'])}"
    elif not found["schemas"] and found["elsewhere"]:
        yield f"search_path does not lead to our tables, which are in {' or '.join(found['elsewhere'])}"
    if found["filtered"]:
        yield f"row level security hides rows of {', '.join(found['filtered'])}"


@read_transaction
def revisions(session: Session) -> Sequence[str]:
    """The database's migration; empty before the first one, several if there are branches.

    Raises:
        NotReady: no migration ever ran (503).
    """
    return session.execute(text("SELECT version_num FROM alembic_version")).scalars().all()


@read_transaction
def index_fault(session: Session) -> str | None:
    """The fault of the index that allows one active payment per consultation (promise M1); None if there is none.

    Raises:
        NotReady: the index looks correct, but the insert of a payment cannot use it (503).
    """
    found = session.execute(_THE_INDEX[_dialect(session)], {"name": INDEX}).mappings().first()
    fault = _fault_of_index(found)
    if fault is None:
        session.execute(_NAMES_THE_INDEX)
    return fault


@read_transaction
def faulty_checks(session: Session) -> Sequence[str]:
    """The CHECKs of promise M3 that are missing, altered, not enforced, or not validated for existing rows."""
    is_enforced = _enforced_by_sqlite(session) if _dialect(session) == "sqlite" else _enforced_by_postgresql(session)
    return [name for name in CHECKS if not is_enforced(name)]


def _fault_of_index(found: RowMapping | None) -> str | None:
    if found is None:
        return "missing"
    if not found["whole"]:
        return "invalid: its creation did not finish"
    if not found["is_unique"]:
        return "not unique"
    # SQLite has no arrays: the names are separated by commas.
    columns = found["columns"].split(",") if isinstance(found["columns"], str) else found["columns"]
    if columns != ["consultation_id"]:
        return f"on other columns: {', '.join(columns)}"
    if _statuses(found["predicate"] or "") != set(ACTIVE):
        return "not exactly over the active payments"
    return None


def _statuses(predicate: str) -> set[str] | None:
    """The statuses of ``status IN (...) AND deleted_at IS NULL``, in any order; None for any other predicate."""
    condition = re.split(r"\bWHERE\b", predicate, flags=re.IGNORECASE)[-1]
    terms = [_bare(term) for term in re.split(r"\bAND\b", condition, flags=re.IGNORECASE)]
    others = [term for term in terms if not _STATUS_IN.fullmatch(term)]
    found = [match["words"] for term in terms if (match := _STATUS_IN.fullmatch(term))]
    if len(found) != 1 or [term.lower() for term in others] != ["deleted_atisnull"]:
        return None
    return {status.strip("'") for status in found[0].split(",")}


def _bare(expression: str) -> str:
    """A predicate without casts, spaces, brackets and quotes, which differ without changing its meaning."""
    return re.sub(r'[\s()"]', "", _CAST.sub("", expression))


def _enforced_by_postgresql(session: Session) -> Callable[[str], bool]:
    """Only spaces are ignored, because a cast changes the meaning: ``(a)::text <= (b)::text`` compares letters."""
    expressions = {row.name: re.sub(r"\s", "", row.promise) for row in session.execute(_POSTGRESQL_CHECKS)}
    return lambda name: expressions.get(name) == CHECKS[name][1]


def _enforced_by_sqlite(session: Session) -> Callable[[str], bool]:
    statement = session.scalar(_SQLITE_TABLE) or ""
    bare = re.sub(r"\s", "", _SQLITE_QUOTED.sub(_bare_name, statement))
    return lambda name: re.search(rf",CONSTRAINT{name}CHECK\({re.escape(CHECKS[name][0])}\)[,)]", bare) is not None


def _bare_name(match: re.Match[str]) -> str:
    """Replaces a comment by nothing, a quoted name by the bare name, and everything else by ``?``."""
    if match[0].startswith(("--", "/*")):
        return ""
    name = match["name"] or ""
    return name if name.isidentifier() else "?"


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name

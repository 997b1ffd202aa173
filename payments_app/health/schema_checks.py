"""The last line of defence, as the catalogue of the live database knows it, which somebody may have altered.

A payment may be taken only where the database itself refuses a second one, and a refund only where it refuses too much.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from payments_app.db.base import Base
from payments_app.db.engine import MEANING_SETTINGS, STATEMENT_TIMEOUT_MS
from payments_app.db.transaction import read_transaction
from payments_app.payments.models.payment import ACTIVE_PREDICATE
from payments_app.payments.models.status import ACTIVE

INDEX = "uq_payments_active_consultation"

# M3's CHECKs as the migrations write them, and as PostgreSQL does; both without blanks.
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

# The index by its name. ``whole`` is False after a CREATE INDEX CONCURRENTLY that failed. A column that is an
# expression has no name, and ``columns`` then has a gap. SQLite keeps the predicate only as the end of the statement.
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

# NOT VALID: the rows that were there were never looked at. NOT ENFORCED, which PostgreSQL 18 brought: new ones are not
# either; the catalogues before it have no such column, which is no error in JSON.
_POSTGRESQL_CHECKS = text(
    """
    SELECT c.conname AS name, pg_get_expr(c.conbin, c.conrelid) AS promise
    FROM pg_constraint c
    WHERE c.conrelid = to_regclass('payments') AND c.contype = 'c'
      AND c.convalidated AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true)
    """
)

_SQLITE_TABLE = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'payments'")

# What a connection of ours must see, whoever has set it. Some of it the service asks for by itself, unless there is a
# pooler; only a superuser may set the others, or nobody once the database is made.
SESSION_VALUES: dict[str, Collection[str]] = {
    **{name: {value} for name, value in MEANING_SETTINGS.items()},
    "client_encoding": {"UTF8"},
    "server_encoding": {"UTF8"},
    "synchronous_commit": {"on", "remote_apply"},
    "session_replication_role": {"origin", "local"},  # a replica checks no foreign key
    "zero_damaged_pages": {"off"},
    "ignore_checksum_failure": {"off"},
}

# PostgreSQL 17 and newer: less than a statement may take would end the connection in the middle of one.
_TRANSACTION_TIMEOUT = "transaction_timeout"

# One statement, because /readyz asks often. ``schemas``: those that our tables are found in by the search_path;
# ``elsewhere``: those that have a table of payments, whether it is found or not. A schema that is searched before
# PostgreSQL's own catalogue may replace functions of PostgreSQL's; temporary tables hold no functions.
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
                 WHERE relname = 'payments' AND relkind IN ('r', 'p')) AS elsewhere
    """
)

# Planned, never run: the index must be one that the insert of a payment finds. SQLite looks for the very text.
_NAMES_THE_INDEX = text(
    "EXPLAIN INSERT INTO payments (id, consultation_id) VALUES (1, 1)"
    f" ON CONFLICT (consultation_id) WHERE {ACTIVE_PREDICATE} DO NOTHING"
)

# SQLite keeps a table's statement as it was typed: what in it is a comment, a text or a name in quotes.
_SQLITE_ASIDE = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|`[^`]*`|\[[^\]]*\]|"(?P<name>(?:[^"]|"")*)\"""", re.DOTALL
)
# A cast that PostgreSQL writes out, such as ::character varying(32) or ::text[].
_CAST = re.compile(r"::[a-z ]+(\([0-9]+\))?(\[\])?")
# How PostgreSQL (= ANY) and people (IN) write a set of statuses, once blanks and brackets are gone.
_STATUS_IN = re.compile(r"status(?:=ANYARRAY\[|IN)(?P<words>'[^']*'(?:,'[^']*')*)\]?", re.IGNORECASE)


@read_transaction
def is_read_only(session: Session) -> bool:
    """Whether the database that is reached takes nothing in.

    Raises:
        DatabaseUnavailable: it cannot be reached (503).
    """
    if _dialect(session) == "sqlite":
        session.execute(text("SELECT 1"))
        return False
    return bool(session.execute(text("SHOW transaction_read_only")).scalar_one() == "on")


@read_transaction
def server_time(session: Session) -> datetime | None:
    """What time the database's machine believes it is; None of SQLite, which is this machine's."""
    if _dialect(session) == "sqlite":
        return None
    moment: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


@read_transaction
def may_lose_commits(session: Session) -> bool:
    """Whether PostgreSQL was told not to wait for its disk: what it has committed may be gone after a power cut."""
    return _dialect(session) == "postgresql" and session.execute(text("SHOW fsync")).scalar_one() == "off"


@read_transaction
def timeouts_off(session: Session) -> Sequence[str]:
    """Those of PostgreSQL's timeouts that end what waits for somebody, and are not set on this connection."""
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
    return [name for name in names if session.execute(text(f"SHOW {name}")).scalar_one() == "0"]


@read_transaction
def session_faults(session: Session) -> Sequence[str]:
    """What changes the meaning of our statements on this connection: settings, and what the search_path leads to.

    SQLite has no settings but those of a connection, which are our own.
    """
    if _dialect(session) == "sqlite":
        return []
    asked = {"names": [*SESSION_VALUES, _TRANSACTION_TIMEOUT], "tables": [*Base.metadata.tables]}
    found = session.execute(_SESSION, asked).mappings().one()
    return [*_wrong_settings(found["settings"]), *_wrong_schemas(found)]


def _wrong_settings(settings: Mapping[str, str]) -> Iterator[str]:
    for name, value in settings.items():
        if name == _TRANSACTION_TIMEOUT:
            if 0 < int(value) < STATEMENT_TIMEOUT_MS:
                yield f"{name} is {value} ms, less than a statement may take ({STATEMENT_TIMEOUT_MS})"
        elif value.partition(",")[0] not in SESSION_VALUES[name]:  # of "ISO, MDY" the second is about reading
            yield f"{name} is {value}, not {' or '.join(sorted(SESSION_VALUES[name]))}"


def _wrong_schemas(found: RowMapping) -> Iterator[str]:
    if found["first_schema"] != "pg_catalog":
        yield f"search_path has {found['first_schema']} before pg_catalog"
    if len(found["schemas"]) > 1:
        yield f"search_path finds our tables in several schemas: {', '.join(found['schemas'])}"
    if not found["schemas"] and found["elsewhere"]:
        yield f"search_path does not lead to our tables, which are in {' or '.join(found['elsewhere'])}"
    if found["filtered"]:
        yield f"row level security hides rows of {', '.join(found['filtered'])}"


@read_transaction
def revisions(session: Session) -> Sequence[str]:
    """The migration that the database is at; none before the first, several where branches were made.

    Raises:
        NotReady: it never saw a migration (503).
    """
    return session.execute(text("SELECT version_num FROM alembic_version")).scalars().all()


@read_transaction
def index_fault(session: Session) -> str | None:
    """What is wrong with the index that allows one active payment per consultation (M1); None where nothing is.

    Raises:
        NotReady: the insert of a payment does not find it, though it looks as it should (503).
    """
    found = session.execute(_THE_INDEX[_dialect(session)], {"name": INDEX}).mappings().first()
    fault = _what_is_wrong(found)
    if fault is None:
        session.execute(_NAMES_THE_INDEX)
    return fault


@read_transaction
def faulty_checks(session: Session) -> Sequence[str]:
    """The CHECKs of M3 that are missing, altered, not enforced, or were never held against the rows that were there."""
    is_held = _held_by_sqlite(session) if _dialect(session) == "sqlite" else _held_by_postgresql(session)
    return [name for name in CHECKS if not is_held(name)]


def _what_is_wrong(found: RowMapping | None) -> str | None:
    if found is None:
        return "missing"
    if not found["whole"]:
        return "invalid: it was never built to its end"
    if not found["is_unique"]:
        return "not unique"
    # SQLite has no arrays, but commas between.
    columns = found["columns"].split(",") if isinstance(found["columns"], str) else found["columns"]
    if columns != ["consultation_id"]:
        return f"on other columns: {', '.join(columns)}"
    if _statuses(found["predicate"] or "") != set(ACTIVE):
        return "not over the active payments, all of them and no others"
    return None


def _statuses(predicate: str) -> set[str] | None:
    """The statuses of ``status IN (...) AND deleted_at IS NULL``, in whatever order; None of any other predicate."""
    condition = re.split(r"\bWHERE\b", predicate, flags=re.IGNORECASE)[-1]
    terms = [_bare(term) for term in re.split(r"\bAND\b", condition, flags=re.IGNORECASE)]
    others = [term for term in terms if not _STATUS_IN.fullmatch(term)]
    found = [match["words"] for term in terms if (match := _STATUS_IN.fullmatch(term))]
    if len(found) != 1 or [term.lower() for term in others] != ["deleted_atisnull"]:
        return None
    return {word.strip("'") for word in found[0].split(",")}


def _bare(expression: str) -> str:
    """A predicate without what means nothing in it, and differs: casts, blanks, brackets, quotes."""
    return re.sub(r'[\s()"]', "", _CAST.sub("", expression))


def _held_by_postgresql(session: Session) -> Callable[[str], bool]:
    """A cast or a bracket may be the whole difference: ``(a)::text <= (b)::text`` compares letters."""
    promises = {row.name: re.sub(r"\s", "", row.promise) for row in session.execute(_POSTGRESQL_CHECKS)}
    return lambda name: promises.get(name) == CHECKS[name][1]


def _held_by_sqlite(session: Session) -> Callable[[str], bool]:
    statement = session.scalar(_SQLITE_TABLE) or ""
    bare = re.sub(r"\s", "", _SQLITE_ASIDE.sub(_name_alone, statement))
    return lambda name: re.search(rf",CONSTRAINT{name}CHECK\({re.escape(CHECKS[name][0])}\)[,)]", bare) is not None


def _name_alone(aside: re.Match[str]) -> str:
    """What is left of something set aside: of a comment nothing, of a name in quotes the name, where it is one."""
    if aside[0].startswith(("--", "/*")):
        return ""
    name = aside["name"] or ""
    return name if name.isidentifier() else "?"


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name

"""The privileges that the service's database role needs, and which of them it lacks.

Without this check a table that lost one of them would be noticed by the first request that needs it.
"""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction

_READ = ("SELECT",)
_APPEND = ("SELECT", "INSERT")
_CHANGE = ("SELECT", "INSERT", "UPDATE")

# What requests and timers do with each table. Locking a row takes UPDATE too. `payments prove` and `demo seed` also
# delete what they have made: they are not needed to take payments.
NEEDED = {
    "alembic_version": _READ,
    "api_keys": _CHANGE,
    "consultations": _CHANGE,
    "credit_note_counters": _CHANGE,
    "credit_notes": _CHANGE,
    "disputes": _CHANGE,
    "gateway_sessions": (*_CHANGE, "DELETE"),
    "id_blocks": ("SELECT", "UPDATE"),
    "idempotency_keys": _CHANGE,
    "invoices": _CHANGE,
    "payment_events": _CHANGE,
    "payment_links": _CHANGE,
    "payments": _CHANGE,
    "refunds": _CHANGE,
    "tax_records": _APPEND,
    "users": _CHANGE,
    "webhook_deliveries": (*_CHANGE, "DELETE"),
    "webhook_endpoints": _CHANGE,
    "webhook_events": _CHANGE,
}

# One statement, because /readyz runs it often. A table that does not exist is the business of the migrations' check. A
# privilege on some columns counts, because whoever grants columns has counted them. An inserted row takes its id from
# a sequence that belongs to the table.
_LACKING = text(
    """
    WITH needed AS (
        SELECT to_regclass(n.name) AS oid, n.name, n.privilege
        FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) AS n (name, privilege)),
    lacking AS (
        SELECT 'TABLE' AS kind, name, privilege FROM needed
        WHERE oid IS NOT NULL AND NOT CASE privilege
            WHEN 'DELETE' THEN has_table_privilege(oid, privilege) ELSE has_any_column_privilege(oid, privilege) END
        UNION ALL
        SELECT 'SEQUENCE', s.relname, 'USAGE'
        FROM needed n JOIN pg_depend d ON d.refobjid = n.oid AND d.refclassid = 'pg_class'::regclass
            JOIN pg_class s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass
        WHERE n.privilege = 'INSERT' AND d.deptype = 'a'
            AND NOT CASE s.relkind WHEN 'S' THEN has_sequence_privilege(s.oid, 'USAGE, UPDATE') ELSE true END)
    SELECT format('GRANT %s ON %s %I TO %I', string_agg(privilege, ', ' ORDER BY privilege), kind, name, current_user)
    FROM lacking GROUP BY kind, name ORDER BY kind DESC, name
    """
)


@read_transaction
def missing_grants(session: Session) -> Sequence[str]:
    """The statements that give the role what it lacks; empty for SQLite, which has no roles.

    Raises:
        DatabaseUnavailable: it cannot be reached (503).
    """
    if session.get_bind().dialect.name == "sqlite":
        return []
    needed = [(table, privilege) for table, privileges in NEEDED.items() for privilege in privileges]
    parameters = {"tables": [table for table, _ in needed], "privileges": [privilege for _, privilege in needed]}
    return session.execute(_LACKING, parameters).scalars().all()

"""The readiness checks, by name: all must pass before payments are accepted."""

from collections.abc import Callable, Mapping
from functools import cache

from alembic.script import ScriptDirectory
from flask import Flask, current_app
from sqlalchemy.exc import SQLAlchemyError

from payments_app.db.engine import current_engines, describe_driver_error
from payments_app.db.errors import is_insufficient_privilege
from payments_app.errors import AppError, NotReady
from payments_app.gateways.registry import silent_gateways
from payments_app.health import durability, privileges, schema_checks
from payments_app.readiness import Readiness
from payments_app.redis_client import RedisUnavailable, current_redis, write_probe

# Returns the fault as text; None if there is none.
Check = Callable[[], str | None]


def init_app(app: Flask) -> None:
    """Set up the cached readiness check for ``/readyz`` and for views that create payments."""
    app.extensions["readiness"] = Readiness(run_checks, degradations)


def required_checks() -> Mapping[str, Check]:
    """The checks that this service requires: more in production than elsewhere."""
    return {**CHECKS, **PRODUCTION_CHECKS} if current_app.config["SETTINGS"].is_production else CHECKS


def run_checks() -> dict[str, str]:
    """The faults found, by check name; empty if all checks pass.

    Stops after a fault of ``STOPPING``: the other checks would fail too, or their results mean nothing.
    """
    faults: dict[str, str] = {}
    for name, check in required_checks().items():
        fault = fault_of(check)
        if fault is not None:
            faults[name] = fault
            if name in STOPPING:
                break
    return faults


def degradations() -> dict[str, str]:
    """What an operator should know although payments are accepted, by check name."""
    if not current_app.config["SETTINGS"].is_production:
        return {}
    try:
        notes = "; ".join(durability.server_durability().notes())
    except (AppError, SQLAlchemyError):  # the next run of the checks finds the fault
        return {}
    return {"durability": notes} if notes else {}


def fault_of(check: Check) -> str | None:
    """The fault that a check finds; a failed query is a fault too. None if there is none."""
    try:
        return check()
    except AppError as error:  # its own text is for API clients
        return describe_driver_error(error.__cause__ or error)
    except SQLAlchemyError as error:  # such as a revoked permission
        return f"the database refused the query: {describe_driver_error(error)}"


def redis_fault() -> str | None:
    """Why Redis is not used; None if it works. Without it each process counts rate limits for itself."""
    redis = current_redis()
    if redis is None:
        return "not configured"
    try:
        redis.call(write_probe)
    except RedisUnavailable as error:
        cause = error.__cause__
        return "skipped after a failure" if cause is None else f"{type(cause).__name__}: {cause}"
    return None


def gateway_states() -> dict[str, str]:
    """``ok`` or ``degraded``, by gateway: one that is silent is not called by this process; other ways to pay work."""
    return {name: "degraded" if is_silent else "ok" for name, is_silent in silent_gateways().items()}


def _database() -> str | None:
    if not schema_checks.is_read_only():
        return None
    current_engines().writer.dispose()  # so that the next check reconnects: the primary may be another server
    return "read-only: a standby, or default_transaction_read_only is on"


def _session() -> str | None:
    faults = schema_checks.session_faults()
    if not faults:
        return None
    current_engines().writer.dispose()  # a corrected setting applies to new connections only
    return "; ".join(faults)


def _privileges() -> str | None:
    grants = privileges.missing_grants()
    return f"the database role lacks privileges: {'; '.join(grants)}" if grants else None


def _migrations() -> str | None:
    newest, known = _revisions_of(current_app.extensions["migrate"].directory)
    try:
        at = set(schema_checks.revisions())
    except NotReady as error:
        if is_insufficient_privilege(error):
            raise
        at = set()
    # A newer release has migrated the database while this one is still serving. That is no fault: the other checks
    # verify what this release needs.
    if at - known:
        return None
    if at != {newest}:
        return f"at migration {', '.join(sorted(at)) or 'none'}, not {newest}: run flask --app wsgi db upgrade"
    return None


@cache
def _revisions_of(directory: str) -> tuple[str | None, frozenset[str]]:
    """The newest migration of this release, and all its migrations."""
    scripts = ScriptDirectory(directory)
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def _index() -> str | None:
    try:
        fault = schema_checks.index_fault()
    except NotReady as error:
        if is_insufficient_privilege(error):
            raise
        fault = "not usable by the insert of a payment"
    return fault and f"{schema_checks.INDEX} is {fault}: a second payment would be possible"


def _refund_checks() -> str | None:
    faulty = schema_checks.faulty_checks()
    if not faulty:
        return None
    return f"{', '.join(faulty)} missing, invalid or altered: refunds above the received amount would be possible"


def _durability() -> str | None:
    return "; ".join(durability.server_durability().faults()) or None


CHECKS: Mapping[str, Check] = {
    "database": _database,
    "session": _session,
    "privileges": _privileges,
    "migrations": _migrations,
    "index": _index,
    "checks": _refund_checks,
}

# Elsewhere only the command ``check`` says so: servers of tests and of developers run without fsync, to be quick.
PRODUCTION_CHECKS: Mapping[str, Check] = {"durability": _durability}

# A fault of one of these ends the run.
STOPPING = ("database", "session", "privileges")

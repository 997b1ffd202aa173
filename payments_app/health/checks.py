"""What has to be in place before money may be taken: each check by its name."""

from collections.abc import Callable
from functools import cache

from alembic.script import ScriptDirectory
from flask import Flask, current_app
from redis import Redis
from sqlalchemy.exc import SQLAlchemyError

from payments_app.db.engine import current_engines, describe_driver_error
from payments_app.errors import AppError, NotReady
from payments_app.health import schema_checks
from payments_app.readiness import Readiness
from payments_app.redis_client import RedisUnavailable, current_redis

# Says what is wrong; None where nothing is.
Check = Callable[[], str | None]


def init_app(app: Flask) -> None:
    """Let doors that take money ask for the verdict of these checks."""
    app.extensions["readiness"] = Readiness(run_checks)


def run_checks() -> dict[str, str]:
    """What is not in place, by the name of the check, and why. A database that cannot be reached is asked no more, nor
    one whose answers may mean something else.
    """
    faults: dict[str, str] = {}
    for name, check in CHECKS.items():
        fault = fault_of(check)
        if fault is not None:
            faults[name] = fault
            if name in ("database", "session"):
                break
    return faults


def fault_of(check: Check) -> str | None:
    """What a check finds; a question that the database does not answer counts as a no."""
    try:
        return check()
    except AppError as error:  # its own words are for callers
        return describe_driver_error(error.__cause__ or error)
    except SQLAlchemyError as error:  # such as a right that was taken from us
        return f"the database refused the question: {describe_driver_error(error)}"


def redis_state() -> str:
    """``ok`` or ``degraded``: without Redis everything works, but rate limits are each process's own."""
    redis = current_redis()
    if redis is None:
        return "degraded"
    try:
        redis.call(Redis.ping)
    except RedisUnavailable:
        return "degraded"
    return "ok"


def _database() -> str | None:
    if not schema_checks.is_read_only():
        return None
    current_engines().writer.dispose()  # the next look is to connect anew: the primary may be elsewhere by now
    return "read-only: a standby, or default_transaction_read_only is on"


def _session() -> str | None:
    faults = schema_checks.session_faults()
    if not faults:
        return None
    current_engines().writer.dispose()  # a setting that is put right holds for connections that are opened from now on
    return "; ".join(faults)


def _migrations() -> str | None:
    newest, known = _revisions_of(current_app.extensions["migrate"].directory)
    try:
        at = set(schema_checks.revisions())
    except NotReady:
        at = set()
    # A newer release has migrated the database, and this one still serves while it is replaced. What this one cannot
    # do without, the other checks look at.
    if at - known:
        return None
    if at != {newest}:
        return f"at migration {', '.join(sorted(at)) or 'none'}, not {newest}: run flask --app wsgi db upgrade"
    return None


@cache
def _revisions_of(directory: str) -> tuple[str | None, frozenset[str]]:
    """The newest of the migrations that this release has, and all of them."""
    scripts = ScriptDirectory(directory)
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def _index() -> str | None:
    try:
        fault = schema_checks.index_fault()
    except NotReady:
        fault = "not one that the insert of a payment can use"
    return fault and f"{schema_checks.INDEX} is {fault}: nothing stops a second payment"


def _refund_checks() -> str | None:
    faulty = schema_checks.faulty_checks()
    if not faulty:
        return None
    return f"{', '.join(faulty)} missing, invalid or altered: nothing stops too large a refund"


CHECKS: dict[str, Check] = {
    "database": _database,
    "session": _session,
    "migrations": _migrations,
    "index": _index,
    "checks": _refund_checks,
}

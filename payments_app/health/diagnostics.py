"""The diagnostics of the command ``check``: the readiness checks, and more that an operator should know."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy.exc import SQLAlchemyError

from config import Settings
from payments_app import clock
from payments_app.accounts import passwords
from payments_app.accounts.repository import find_credentials, users_without_normalized_email
from payments_app.consultations.repository import count_unpaid_in_other_currency
from payments_app.db.engine import describe_driver_error
from payments_app.demo.people import PASSWORD, USERS
from payments_app.errors import AppError
from payments_app.gateways.base import Declined, OutcomeUnknown
from payments_app.gateways.registry import configured_gateways, find_event_source, find_gateway, payment_methods
from payments_app.health import durability, schema_checks
from payments_app.health.checks import CHECKS, STOPPING, fault_of, redis_fault
from payments_app.payments.repository import count_references_not_compared
from payments_app.webhook_endpoints.repository import count as count_endpoints
from payments_app.webhook_endpoints.repository import find_unsent_since

# Seconds that two clocks may differ before it is a note. NTP keeps a clock within far less than a second; Stripe sends
# its time in whole seconds, and the response takes some time.
CLOCK_NOTED_SECONDS = 5

# Seconds from which it is bad. A webhook may be 300 seconds old; a clock that is wrong by 60 uses up a fifth of that.
CLOCK_BAD_SECONDS = 60

# The sender looks for events twice a second, and an endpoint that hangs holds up its own for ten at a time.
UNSENT_NOTED_SECONDS = 300

# The maximum number of user ids in a line.
SHOWN_USERS = 5


class Severity(StrEnum):
    """``note``: it works, but an operator should know."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One line of the command ``check``; ``what`` is the name of the check."""

    what: str
    verdict: Severity
    detail: str


# The texts of passed checks.
_PASSED = {
    "database": "reached",
    "session": "no setting changes the meaning of statements",
    "privileges": "the database role has those that it needs",
    "migrations": "have run",
    "index": "allows one active payment per consultation",
    "checks": "refunds never exceed the money received",
}


def all_diagnostics(settings: Settings) -> Iterator[Diagnostic]:
    """Yields each diagnostic as soon as it is known."""
    yield Diagnostic("settings", Severity.OK, f"{settings.app_env}, locking {settings.payment_locking}")
    stopped_by = None
    for name, check in CHECKS.items():
        fault = fault_of(check)
        yield Diagnostic(name, Severity.BAD if fault else Severity.OK, fault or _PASSED[name])
        if fault and name in STOPPING:
            stopped_by = name
            break
    if stopped_by is None:
        yield from _durability(settings)
        yield from _currencies(settings.payment_currency)
        yield from _references()
        yield from _endpoints()
    else:  # they would all say the same, or what cannot be trusted
        yield Diagnostic("skipped", Severity.NOTE, f"all other checks of the database, until {stopped_by} is ok")
    yield _redis(settings)
    yield from _methods(settings)
    yield from _gateways()
    if stopped_by is None:
        yield from _database_clock()
        yield from _shared_addresses()
    if settings.is_production:
        yield from _production(settings)
        if stopped_by is None:
            yield from _demo_users()


def _durability(settings: Settings) -> Iterator[Diagnostic]:
    """In production the faults are of a readiness check too."""
    try:
        found = durability.server_durability()
    except (AppError, SQLAlchemyError):  # another diagnostic reports it
        return
    for fault in found.faults():
        yield Diagnostic("durability", Severity.BAD if settings.is_production else Severity.NOTE, fault)
    for note in found.notes():
        yield Diagnostic("durability", Severity.NOTE, note)


def _currencies(currency: str) -> Iterator[Diagnostic]:
    try:
        count = count_unpaid_in_other_currency(currency)
    except (AppError, SQLAlchemyError) as error:
        yield _not_counted("currency", "unpaid consultations in another currency", error)
        return
    if count:
        yield Diagnostic(
            "currency",
            Severity.NOTE,
            f"unpaid consultations in another currency than {currency}: {count}; register them again",
        )
    else:
        yield Diagnostic("currency", Severity.OK, f"{currency}, as all unpaid consultations are")


def _references() -> Iterator[Diagnostic]:
    try:
        count = count_references_not_compared()
    except (AppError, SQLAlchemyError) as error:
        yield _not_counted("references", "payments by hand whose reference is not compared", error)
        return
    if count:
        yield Diagnostic(
            "references",
            Severity.NOTE,
            f"payments by hand whose reference is not compared with others: {count}; payments audit lists them",
        )


def _endpoints() -> Iterator[Diagnostic]:
    """Whether other systems are told of events."""
    try:
        counts, unsent_since = count_endpoints(), find_unsent_since()
    except (AppError, SQLAlchemyError) as error:
        yield _not_counted("endpoints", "webhook endpoints", error)
        return
    if counts.disabled:
        yield Diagnostic(
            "endpoints",
            Severity.NOTE,
            f"webhook endpoints disabled after a 410, or after five days in which they took nothing: {counts.disabled};"
            " webhooks list names them",
        )
    if counts.failing:
        yield Diagnostic(
            "endpoints",
            Severity.NOTE,
            f"webhook endpoints that take nothing now: {counts.failing}; webhooks list names them",
        )
    unsent_seconds = 0.0 if unsent_since is None else (clock.now() - unsent_since).total_seconds()
    if unsent_seconds > UNSENT_NOTED_SECONDS:
        yield Diagnostic(
            "endpoints", Severity.NOTE, f"an event waits for {unsent_seconds:.0f} s to be sent: does webhooks send run?"
        )
    elif not counts.disabled and not counts.failing:
        yield Diagnostic("endpoints", Severity.OK, f"webhook endpoints that receive events: {counts.enabled}")


def _not_counted(name: str, rows: str, error: Exception) -> Diagnostic:
    """The table is locked, or too large to count within the statement timeout: a note for the operator."""
    return Diagnostic(
        name, Severity.NOTE, f"{rows} could not be counted: {describe_driver_error(error.__cause__ or error)}"
    )


def _redis(settings: Settings) -> Diagnostic:
    fault = redis_fault()
    if fault is None:
        return Diagnostic("redis", Severity.OK, "takes writes")
    if settings.redis_url is None:
        return Diagnostic("redis", Severity.NOTE, f"{fault}: each process counts rate limits for itself")
    consequence = "locks are skipped, " if settings.payment_locking in ("redis", "hybrid") else ""
    return Diagnostic(
        "redis", Severity.NOTE, f"is not used: {consequence}each process counts rate limits for itself ({fault})"
    )


def _methods(settings: Settings) -> Iterator[Diagnostic]:
    for method in payment_methods():
        nothing_moves = settings.is_production and not find_gateway(method.gateway).capabilities.moves_money
        verdict = Severity.NOTE if nothing_moves else Severity.OK
        yield Diagnostic("method", verdict, f"{method.code} by {method.gateway}" + ", no money moves" * nothing_moves)


def _gateways() -> Iterator[Diagnostic]:
    """The gateways that are services elsewhere; the others cannot be down."""
    for name, gateway in configured_gateways().items():
        source = find_event_source(name)
        if source is None:
            continue
        setting = f"{name.upper()}_API_KEY"
        match gateway.ping():
            case Declined(reason):
                yield Diagnostic("gateway", Severity.BAD, f"{name} does not accept {setting}: {reason}")
            case OutcomeUnknown(reason):
                yield Diagnostic("gateway", Severity.BAD, f"{name} cannot be reached: {reason}")
            case reachable:
                yield Diagnostic("gateway", Severity.OK, f"{name} responds, and accepts {setting}")
                if reachable.at is not None:
                    yield _clock(f"{name}'s", reachable.at, clock.now())
        if not source.has_webhook_secret:
            setting = f"{name.upper()}_WEBHOOK_SECRET"
            yield Diagnostic("webhooks", Severity.BAD, f"{setting} is not set: every event of {name}'s is refused")


def _database_clock() -> Iterator[Diagnostic]:
    started_at = clock.now()
    try:
        database_time = schema_checks.server_time()
    except AppError:  # another diagnostic reports it
        return
    except SQLAlchemyError as error:
        yield Diagnostic("clock", Severity.BAD, f"the database's is not known: {describe_driver_error(error)}")
        return
    if database_time is not None:
        # The request took some time: compare with the moment in it that fits best.
        yield _clock("the database's", database_time, min(max(database_time, started_at), clock.now()))


def _clock(owner: str, other_time: datetime, our_time: datetime) -> Diagnostic:
    ahead_seconds = (our_time - other_time).total_seconds()
    apart_seconds = abs(ahead_seconds)
    if apart_seconds <= CLOCK_NOTED_SECONDS:
        return Diagnostic("clock", Severity.OK, f"agrees with {owner}")
    verdict = Severity.NOTE if apart_seconds <= CLOCK_BAD_SECONDS else Severity.BAD
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return Diagnostic(
        "clock", verdict, f"{apart_seconds:.0f} s {direction} {owner}: the age of tokens and webhooks is wrong"
    )


def _shared_addresses() -> Iterator[Diagnostic]:
    """Users whose address is, in another spelling, also another user's."""
    try:
        ids = users_without_normalized_email(SHOWN_USERS)
    except (AppError, SQLAlchemyError):  # other diagnostics report it
        return
    if ids:
        shown_ids = ", ".join(map(str, ids)) + ", ..." * (len(ids) == SHOWN_USERS)
        yield Diagnostic(
            "users",
            Severity.NOTE,
            f"the e-mail address of users {shown_ids} works in one spelling only: see docs/operations.md",
        )


def _production(settings: Settings) -> Iterator[Diagnostic]:
    """Settings that are fine for development, but not in production."""
    if settings.trusted_proxies == 0:
        yield Diagnostic(
            "proxies",
            Severity.NOTE,
            "TRUSTED_PROXIES is 0: behind a proxy, every request is refused, and all clients share one address",
        )
    for name in configured_gateways():
        source = find_event_source(name)
        if source is not None and source.livemode is False:
            yield Diagnostic("gateway", Severity.NOTE, f"{name.upper()}_API_KEY is a test key: no money moves")
    if settings.database_url.startswith("sqlite"):
        yield Diagnostic("database", Severity.NOTE, "SQLite (ALLOW_SQLITE): one writer at a time, on one machine")


def _demo_users() -> Iterator[Diagnostic]:
    """Users of the demo, whose password is published."""
    try:
        for email, _name, _role in USERS:
            found = find_credentials(email)
            if found and not found.disabled and passwords.is_correct(PASSWORD, found.password_hash):
                yield Diagnostic(
                    "users", Severity.BAD, f"{email} has the published password of the demo: run users disable {email}"
                )
    except AppError:
        return
    except SQLAlchemyError as error:
        yield Diagnostic(
            "users", Severity.BAD, f"could not check for users of the demo: {describe_driver_error(error)}"
        )

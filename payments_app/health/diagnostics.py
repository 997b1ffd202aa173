"""What ``flask check`` finds: the checks that decide whether payments are taken, and what an operator should know."""

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
from payments_app.health import schema_checks
from payments_app.health.checks import CHECKS, fault_of, redis_state
from payments_app.payments.repository import count_references_not_compared

# Seconds that two clocks may be apart before it is said. A server's clock that is looked after is right to far less
# than one; Stripe tells its own in whole ones, and some time passes on the way.
CLOCK_NOTED_SECONDS = 5

# Seconds before it is bad. Of the 300 that a webhook may be old, so much would be gone before it was sent.
CLOCK_BAD_SECONDS = 60

# Ids of users that a line names.
SHOWN_USERS = 5


class Severity(StrEnum):
    """``note``: it works, but an operator should know."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    what: str
    verdict: Severity
    detail: str


# What is said where nothing is wrong.
_IN_PLACE = {
    "database": "reached",
    "session": "its settings leave the meaning of statements alone",
    "migrations": "have run",
    "index": "allows one active payment per consultation",
    "checks": "refunds never exceed the money received",
}


def all_diagnostics(settings: Settings) -> Iterator[Diagnostic]:
    """Each as soon as it is known."""
    yield Diagnostic("settings", Severity.OK, f"{settings.app_env}, locking {settings.payment_locking}")
    for what, check in CHECKS.items():
        fault = fault_of(check)
        yield Diagnostic(what, Severity.BAD if fault else Severity.OK, fault or _IN_PLACE[what])
    yield from _durability(settings)
    if settings.database_pooler != "none":
        yield from _timeouts()
    yield from _currencies(settings.payment_currency)
    yield from _references()
    yield _redis(settings)
    yield from _methods(settings)
    yield from _gateways()
    yield from _database_clock()
    yield from _shared_addresses()
    if settings.is_production:
        yield from _production(settings)


def _durability(settings: Settings) -> Iterator[Diagnostic]:
    """No part of ``CHECKS``: servers for tests are run without fsync, and their payments are nobody's."""
    try:
        may_lose_commits = schema_checks.may_lose_commits()
    except (AppError, SQLAlchemyError):  # that it does not answer is said already
        return
    if may_lose_commits:
        verdict = Severity.BAD if settings.is_production else Severity.NOTE
        yield Diagnostic("durability", verdict, "fsync is off: committed payments may be lost in a power cut")


def _timeouts() -> Iterator[Diagnostic]:
    """Behind a pooler they are not the service's to ask for: somebody has to have told the role."""
    try:
        off = schema_checks.timeouts_off()
    except AppError:  # that it does not answer is said already
        return
    if off:
        yield Diagnostic("timeouts", Severity.NOTE, f"{', '.join(off)} off: ALTER ROLE, as docs/deployment.md says")
    else:
        yield Diagnostic("timeouts", Severity.OK, "are the role's")


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
            f"{count} unpaid consultations are in another currency than {currency}: register them again",
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
            f"{count} payments by hand have a reference that stands alone: payments audit names them",
        )


def _not_counted(what: str, rows: str, error: Exception) -> Diagnostic:
    """Of a table that is locked or too large to be counted in a statement's time, that is worth knowing."""
    return Diagnostic(
        what, Severity.NOTE, f"{rows} could not be counted: {describe_driver_error(error.__cause__ or error)}"
    )


def _redis(settings: Settings) -> Diagnostic:
    if redis_state() == "ok":
        return Diagnostic("redis", Severity.OK, "answers")
    if settings.redis_url is None:
        return Diagnostic("redis", Severity.NOTE, "none: each process counts rate limits by itself")
    consequence = "locks are skipped, " if settings.payment_locking in ("redis", "hybrid") else ""
    return Diagnostic("redis", Severity.NOTE, f"does not answer: {consequence}rate limits are counted by each process")


def _methods(settings: Settings) -> Iterator[Diagnostic]:
    for method in payment_methods():
        nothing_moves = settings.is_production and not find_gateway(method.gateway).capabilities.moves_money
        verdict = Severity.NOTE if nothing_moves else Severity.OK
        yield Diagnostic("method", verdict, f"{method.code} by {method.gateway}" + ", no money moves" * nothing_moves)


def _gateways() -> Iterator[Diagnostic]:
    """Those that are services somewhere else: the others have nothing to be reached at."""
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
            case reached:
                yield Diagnostic("gateway", Severity.OK, f"{name} answers, and accepts {setting}")
                if reached.at is not None:
                    yield _clock(f"{name}'s", reached.at, clock.now())
        if not source.has_webhook_secret:
            setting = f"{name.upper()}_WEBHOOK_SECRET"
            yield Diagnostic("webhooks", Severity.BAD, f"{setting} is not set: every event of {name}'s is refused")


def _database_clock() -> Iterator[Diagnostic]:
    asked_at = clock.now()
    try:
        theirs = schema_checks.server_time()
    except AppError:  # that it does not answer is said already
        return
    except SQLAlchemyError as error:
        yield Diagnostic("clock", Severity.BAD, f"the database's is not known: {describe_driver_error(error)}")
        return
    if theirs is not None:
        # Of the moments between question and answer, the one that fits best.
        yield _clock("the database's", theirs, min(max(theirs, asked_at), clock.now()))


def _clock(whose: str, theirs: datetime, ours: datetime) -> Diagnostic:
    ahead_seconds = (ours - theirs).total_seconds()
    apart_seconds = abs(ahead_seconds)
    if apart_seconds <= CLOCK_NOTED_SECONDS:
        return Diagnostic("clock", Severity.OK, f"agrees with {whose}")
    verdict = Severity.NOTE if apart_seconds <= CLOCK_BAD_SECONDS else Severity.BAD
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return Diagnostic(
        "clock", verdict, f"{apart_seconds:.0f} s {direction} {whose}: tokens and webhooks are judged by their age"
    )


def _shared_addresses() -> Iterator[Diagnostic]:
    """Users whom the migration could not tell from others by their address."""
    try:
        ids = users_without_normalized_email(SHOWN_USERS)
    except (AppError, SQLAlchemyError):  # that it does not answer, or was not migrated, is said already
        return
    if ids:
        theirs = ", ".join(map(str, ids)) + ", ..." * (len(ids) == SHOWN_USERS)
        yield Diagnostic(
            "users",
            Severity.NOTE,
            f"the e-mail address of users {theirs} is known in one spelling only: docs/operations.md says what to do",
        )


def _production(settings: Settings) -> Iterator[Diagnostic]:
    """What is as it should be on a laptop."""
    if settings.trusted_proxies == 0:
        yield Diagnostic(
            "proxies",
            Severity.NOTE,
            "TRUSTED_PROXIES is 0: behind one, everybody has one address, and every request is refused as plain HTTP",
        )
    for name in configured_gateways():
        source = find_event_source(name)
        if source is not None and source.livemode is False:
            yield Diagnostic("gateway", Severity.NOTE, f"{name.upper()}_API_KEY is a test key: no money moves")
    if settings.database_url.startswith("sqlite"):
        yield Diagnostic("database", Severity.NOTE, "SQLite, by ALLOW_SQLITE: one writer at a time, on one machine")
    try:
        for email, _name, _role in USERS:
            found = find_credentials(email)
            if found and not found.disabled and passwords.is_correct(PASSWORD, found.password_hash):
                yield Diagnostic(
                    "users", Severity.BAD, f"{email} has the demo's published password: users disable {email}"
                )
    except AppError:
        return
    except SQLAlchemyError as error:
        yield Diagnostic(
            "users", Severity.BAD, f"whether there are the demo's is not known: {describe_driver_error(error)}"
        )

"""``flask check``: is everything in place that this service stands on?"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import click
from alembic.script import ScriptDirectory
from flask import current_app
from flask.cli import with_appcontext
from redis import Redis

from config import Settings
from payments_app.commands import json_option
from payments_app.errors import AppError, NotReady
from payments_app.gateways.registry import payment_methods
from payments_app.health import readiness
from payments_app.redis_client import RedisUnavailable, current_redis


class Verdict(StrEnum):
    """``note``: it works, but an operator should know."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: Verdict
    detail: str


@click.command("check")
@json_option
@with_appcontext
def check(as_json: bool) -> None:
    """Check settings, database, migrations, the constraints that keep payments single, Redis and gateways.

    Each is a line: ok, note (it works, but you should know) or bad. Exits with 1 if anything is bad.
    """
    findings = list(_findings(current_app.config["SETTINGS"]))
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            click.echo(f"{finding.verdict:<4}  {finding.what:<11}  {finding.detail}")
    raise SystemExit(1 if any(finding.verdict is Verdict.BAD for finding in findings) else 0)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", Verdict.OK, f"{settings.app_env}, locking {settings.payment_locking}")
    for what, look in (("database", _database), ("index", _index), ("checks", _checks)):
        yield _or_why_not(what, look)
    yield _redis(settings)
    yield from _gateways(settings)


def _or_why_not(what: str, look: Callable[[], tuple[Verdict, str]]) -> Finding:
    try:
        return Finding(what, *look())
    except AppError as error:
        return Finding(what, Verdict.BAD, error.message)


def _database() -> tuple[Verdict, str]:
    newest = ScriptDirectory(current_app.extensions["migrate"].directory).get_current_head()
    at = readiness.revision()
    if at != newest:
        return Verdict.BAD, f"at migration {at or 'none'}, not {newest}: run flask --app wsgi db upgrade"
    return Verdict.OK, f"reached, at migration {at}"


def _index() -> tuple[Verdict, str]:
    try:
        readiness.require_index()
    except NotReady:
        return Verdict.BAD, "uq_payments_active_consultation is missing or altered: nothing stops a second payment"
    return Verdict.OK, "allows one active payment per consultation"


def _checks() -> tuple[Verdict, str]:
    missing = readiness.missing_checks()
    if missing:
        return Verdict.BAD, f"{', '.join(missing)} missing, invalid or altered: nothing stops too large a refund"
    return Verdict.OK, "refunds never exceed the money received"


def _redis(settings: Settings) -> Finding:
    redis = current_redis()
    if redis is None:
        return Finding("redis", Verdict.NOTE, "none: each process counts rate limits by itself")
    try:
        redis.call(Redis.ping)
    except RedisUnavailable:
        consequence = "locks are skipped, " if settings.payment_locking in ("redis", "hybrid") else ""
        return Finding("redis", Verdict.NOTE, f"does not answer: {consequence}rate limits are counted by each process")
    return Finding("redis", Verdict.OK, "answers")


def _gateways(settings: Settings) -> Iterator[Finding]:
    for method in payment_methods():
        nothing_moves = settings.is_production and method.gateway == "sandbox"
        verdict = Verdict.NOTE if nothing_moves else Verdict.OK
        yield Finding("method", verdict, f"{method.code} by {method.gateway}")
    if settings.stripe_api_key and not settings.stripe_webhook_secrets:
        yield Finding("webhooks", Verdict.BAD, "STRIPE_WEBHOOK_SECRET is not set: every event of Stripe's is refused")

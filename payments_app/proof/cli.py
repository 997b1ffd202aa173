"""``flask payments prove``: whoever runs this service tries for themselves whether it keeps its promises."""

import secrets
import sys

import click
import urllib3
from flask import current_app
from urllib3.exceptions import LocationParseError

from payments_app.commands import CommandFailed, is_agreed, json_option, say
from payments_app.health.checks import run_checks
from payments_app.proof import repository, runner
from payments_app.proof.own_server import DoesNotStart, OwnWorkers
from payments_app.proof.report import print_faults, print_findings, print_removed, print_report, show_plan
from payments_app.proof.repository import FIRST_CONSULTATION, LAST_CONSULTATION, Leftovers
from payments_app.proof.runner import NotRemoved, ProofPlan, Report, Stopped
from payments_app.proof.scenario import LoadProfile, WrongTarget

# Requests at once that our nginx allows one network (limit_conn).
MOST_CLIENTS = 100

# New payments that a user must be allowed for there to be a race.
LEAST_SHARE = 2


@click.command("prove")
@click.option(
    "--clients",
    type=click.IntRange(2, MOST_CLIENTS),
    default=20,
    show_default=True,
    help="Requests at the same moment.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often each attack is made.")
@click.option("--seed", type=click.IntRange(0), help="Amounts, keys and order of an earlier run again.")
@click.option("--url", help="Ask the service that runs there, such as nginx, instead of one started for this.")
@click.option(
    "--pace",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="With --url: requests a second, on average. Our nginx allows one network 20 new payments.",
)
@click.option("--kill-workers", is_flag=True, help="Kill -9 workers as well: those of the gunicorn started for this.")
@click.option("--clean-up", is_flag=True, help="Only remove what a run that was killed has left.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def prove(
    *,
    clients: int,
    rounds: int,
    seed: int | None,
    url: str | None,
    pace: int,
    kill_workers: bool,
    clean_up: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Attack this deployment, and count by its rows whether each promise held.

    Writes users, consultations and payments of its own, and removes them all at the end, also when it is interrupted;
    says so before, and asks. No money moves, and nobody else's row is touched: see docs/proving.md.

    Exits with 1 if a promise did not hold, with 2 if it could not be tried.
    """
    try:
        if clean_up:
            _clean_up(yes=yes, as_json=as_json)
            return
        if kill_workers and (url is not None or not OwnWorkers.can_be_found()):
            raise CommandFailed("--kill-workers kills those of a gunicorn started for this, on Linux: without --url.")
        _require_address(url)
        seed = secrets.randbelow(10**9) if seed is None else seed
        plan = ProofPlan(_crowd(clients), rounds, seed, url, pace, kill_workers)
        raise SystemExit(_try_out(plan, yes=yes, as_json=as_json))
    except click.Abort:  # nobody there to answer: 1 would be a verdict
        raise CommandFailed("Nothing was written: say --yes where nobody can be asked.") from None
    except KeyboardInterrupt:  # before the first row or after the last; 1 would be a verdict
        raise CommandFailed("Stopped by SIGINT; no row of this run is there.") from None
    except Stopped as signal:
        raise CommandFailed(f"Stopped by {signal}; everything that was written is removed.") from None
    except (WrongTarget, DoesNotStart) as reason:
        raise CommandFailed(f"The service could not be asked: {reason}") from None
    except NotRemoved as reason:
        raise CommandFailed(f"Rows are left, run payments prove --clean-up: {reason}") from None


def _try_out(plan: ProofPlan, *, yes: bool, as_json: bool) -> int:
    """The exit status."""
    faults = run_checks()
    for name in ("database", "migrations"):
        if name in faults:  # there is nothing to try it on, which is no verdict
            raise CommandFailed(f"{name}: {faults[name]}")
    if faults:
        return print_faults(faults, plan, as_json=as_json)
    left = _require_room()
    show_plan(plan, left)
    if not yes and not is_agreed("Go on?"):
        say("nothing was written", err=True)
        return 0
    if _require_room().users:  # asked again: while somebody read the plan, another run may have begun
        say(f"Removed {runner.remove_all()} rows that a run which was killed had left.", err=True)
    return print_report(_prove(plan), plan, as_json=as_json)


def _require_address(url: str | None) -> None:
    """Before anything is written for a service that nobody can ask."""
    if url is None:
        return
    try:
        address = urllib3.util.parse_url(url)
    except LocationParseError:
        address = urllib3.util.Url()
    # Without its scheme, https would be asked in the clear.
    if address.scheme not in ("http", "https") or not address.host:
        raise CommandFailed("--url must be the address of a service, such as https://pay.clinic.example")


def _crowd(clients: int) -> LoadProfile:
    """By the limit on new payments of one user, which is the deployment's own and is not turned off for this."""
    settings = current_app.config["SETTINGS"]
    allowed = int(settings.ratelimit_payments.split()[0]) if settings.ratelimit_enabled else clients
    if allowed < LEAST_SHARE:  # each storm would be of one click, and hold whatever is broken
        raise CommandFailed(
            f"RATELIMIT_PAYMENTS allows a user {settings.ratelimit_payments}, but it takes"
            f" {LEAST_SHARE} for one to be in the way of the other: nothing was tried."
        )
    return LoadProfile(clients, share=min(clients, allowed))


def _require_room() -> Leftovers:
    """Go on only where the range of our consultations is free, and no other run is under way; what is there of those
    that were killed.
    """
    strangers = repository.find_strangers()
    if strangers:
        raise CommandFailed(
            f"Consultation {strangers[0]} is not a proof's, and within the range of theirs"
            f" ({FIRST_CONSULTATION} to {LAST_CONSULTATION}): nothing was written."
        )
    left = repository.find_leftovers()
    if left.users and not runner.is_abandoned(left):
        raise CommandFailed(
            f"Another run is under way, or was killed within {runner.ABANDONED_AFTER.seconds // 60} minutes:"
            " if it was killed, payments prove --clean-up"
        )
    return left


def _clean_up(*, yes: bool, as_json: bool) -> None:
    left = repository.find_leftovers()
    if not left.users:
        print_removed(0, as_json=as_json)
        return
    say(f"left of runs that were killed: {left}", err=True)
    if not yes and not is_agreed("Remove them? A run that is under way fails by it."):
        say("nothing was removed", err=True)
        return
    print_removed(runner.remove_all(), as_json=as_json)


def _prove(plan: ProofPlan) -> Report:
    total = plan.rounds * len(plan.attacks)
    report = Report.blank(plan)
    try:
        with click.progressbar(length=total, label="Proving", file=sys.stderr) as bar:
            runner.prove(plan, report, tell=lambda: bar.update(1))
    except (Stopped, WrongTarget, NotRemoved):
        print_findings(report)
        raise
    return report

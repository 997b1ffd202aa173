"""The command ``payments prove``: attacks this deployment and checks that no promise is broken."""

import secrets
import sys

import click
import urllib3
from flask import current_app
from urllib3.exceptions import LocationParseError

from payments_app.commands import CommandFailed, is_agreed, json_option, quantity, say
from payments_app.health.checks import run_checks
from payments_app.proof import repository, runner
from payments_app.proof.own_server import DoesNotStart, OwnWorkers
from payments_app.proof.report import print_faults, print_findings, print_removed, print_report, show_plan
from payments_app.proof.repository import FIRST_CONSULTATION, LAST_CONSULTATION, Leftovers
from payments_app.proof.runner import NotRemoved, ProofPlan, Report, Stopped
from payments_app.proof.scenario import LoadProfile, WrongTarget, method_by_hand

# Simultaneous connections that deploy/nginx/payments.conf allows one network (limit_conn).
MAX_CLIENTS = 100

# The number of new payments per user that a race needs.
MIN_SHARE = 2


@click.command("prove")
@click.option(
    "--clients",
    type=click.IntRange(2, MAX_CLIENTS),
    default=20,
    show_default=True,
    help="Requests sent at the same moment.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Number of times that each attack is made."
)
@click.option("--seed", type=click.IntRange(0), help="Repeat amounts, keys and order of an earlier run.")
@click.option(
    "--url", help="Attack the service at this URL, such as that of nginx, instead of one started for this run."
)
@click.option(
    "--pace",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="With --url: requests per second, on average. deploy/nginx allows 20 new payments per network.",
)
@click.option("--kill-workers", is_flag=True, help="Also kill workers (kill -9) of the gunicorn started for this run.")
@click.option("--clean-up", is_flag=True, help="Only remove the rows that a killed run has left.")
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
    """Attack this deployment, then check in its rows that each promise was kept.

    Writes its own users, consultations and payments, and removes them at the end, also after an interruption. Shows its
    plan and asks for confirmation first. No money moves, and no other row is changed: see docs/proving.md.

    Exits with 1 if a promise was broken, with 2 if it could not run.
    """
    try:
        if clean_up:
            _clean_up(yes=yes, as_json=as_json)
            return
        if kill_workers and (url is not None or not OwnWorkers.can_be_found()):
            raise CommandFailed("--kill-workers needs Linux, and a gunicorn started for this run: without --url.")
        _require_address(url)
        if method_by_hand() is None:
            raise CommandFailed(
                "PAYMENT_GATEWAYS gives every method to a gateway that moves money: nothing was tried."
                " The proof needs one that is paid by hand (manual)."
            )
        seed = secrets.randbelow(10**9) if seed is None else seed
        plan = ProofPlan(_load_profile(clients), rounds, seed, url, pace, kill_workers)
        raise SystemExit(_run(plan, yes=yes, as_json=as_json))
    except click.Abort:  # no terminal; 1 would mean a broken promise
        raise CommandFailed("Nothing was written: without a terminal, confirm with --yes.") from None
    except KeyboardInterrupt:  # before the first row or after the last; 1 would mean a broken promise
        raise CommandFailed("Stopped by SIGINT; no row of this run is left.") from None
    except Stopped as signal:
        raise CommandFailed(f"Stopped by {signal}; all written rows were removed.") from None
    except (WrongTarget, DoesNotStart) as reason:
        raise CommandFailed(f"The service could not be attacked: {reason}") from None
    except NotRemoved as reason:
        raise CommandFailed(f"Rows are left: run payments prove --clean-up. Reason: {reason}") from None


def _run(plan: ProofPlan, *, yes: bool, as_json: bool) -> int:
    """Run the proof; returns the exit status."""
    faults = run_checks()
    for name in ("database", "privileges", "migrations"):
        if name in faults:  # the proof cannot run: exit with 2, not 1
            raise CommandFailed(f"{name}: {faults[name]}")
    if faults:
        return print_faults(faults, plan, as_json=as_json)
    left = _require_room()
    show_plan(plan, left)
    if not yes and not is_agreed("Go on?"):
        say("nothing was written", err=True)
        return 0
    if _require_room().users:  # checked again: another run may have started meanwhile
        say(f"Removed {quantity(runner.remove_all(), 'row')} that a killed run had left.", err=True)
    return print_report(_prove(plan), plan, as_json=as_json)


def _require_address(url: str | None) -> None:
    """Require a usable ``--url`` before anything is written."""
    if url is None:
        return
    try:
        address = urllib3.util.parse_url(url)
    except LocationParseError:
        address = urllib3.util.Url()
    # Without a scheme, urllib3 would use plain HTTP.
    if address.scheme not in ("http", "https") or not address.host:
        raise CommandFailed("--url must be the address of a service, such as https://pay.clinic.example")


def _load_profile(clients: int) -> LoadProfile:
    """The load within RATELIMIT_PAYMENTS: the deployment's rate limit stays on."""
    settings = current_app.config["SETTINGS"]
    allowed = int(settings.ratelimit_payments.split()[0]) if settings.ratelimit_enabled else clients
    if allowed < MIN_SHARE:  # each storm would be a single click, and would find nothing
        raise CommandFailed(
            f"RATELIMIT_PAYMENTS allows a user {settings.ratelimit_payments}, but a race needs {MIN_SHARE}:"
            " nothing was tried."
        )
    return LoadProfile(clients, share=min(clients, allowed))


def _require_room() -> Leftovers:
    """Require that the range of consultation ids is free and that no other run is active.

    Returns the rows that killed runs have left.
    """
    foreign = repository.find_foreign_consultations()
    if foreign:
        raise CommandFailed(
            f"Consultation {foreign[0]} is not of this command, but within its range of ids"
            f" ({FIRST_CONSULTATION} to {LAST_CONSULTATION}): nothing was written."
        )
    left = repository.find_leftovers()
    if left.users and not runner.is_abandoned(left):
        raise CommandFailed(
            f"Another run is active, or was killed in the last {runner.ABANDONED_AFTER.seconds // 60} minutes:"
            " if it was killed, run payments prove --clean-up"
        )
    return left


def _clean_up(*, yes: bool, as_json: bool) -> None:
    left = repository.find_leftovers()
    if not left.users:
        print_removed(0, as_json=as_json)
        return
    say(f"Rows that killed runs have left: {left}", err=True)
    if not yes and not is_agreed("Remove them? A run that is still active will fail."):
        say("nothing was removed", err=True)
        return
    print_removed(runner.remove_all(), as_json=as_json)


def _prove(plan: ProofPlan) -> Report:
    total = plan.rounds * len(plan.attacks)
    report = Report.blank(plan)
    try:
        with click.progressbar(length=total, label="Proving", file=sys.stderr) as bar:
            runner.prove(plan, report, on_progress=lambda: bar.update(1))
    except (Stopped, WrongTarget, NotRemoved):
        print_findings(report)
        raise
    return report

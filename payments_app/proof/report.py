"""The output of ``payments prove``: the plan, and the results."""

from collections.abc import Mapping
from typing import Any

from payments_app.commands import quantity, say, say_json, show_facts
from payments_app.proof import repository
from payments_app.proof.repository import FIRST_CONSULTATION, LAST_CONSULTATION, Leftovers
from payments_app.proof.runner import ProofPlan, Report
from payments_app.proof.scenario import method_by_hand

# The maximum number of violations shown per attack: without an index there may be thousands.
SHOWN_VIOLATIONS = 5


def show_plan(plan: ProofPlan, left: Leftovers) -> None:
    """Show what will be written, sent and removed. ``left``: the rows that killed runs have left."""
    load = plan.load
    sizes = [each.size(load) for each in plan.attacks]
    # Besides: one of staff, and one patient whose consultation shows that the service uses this database.
    users, consultations = 2 + sum(size.users for size in sizes), 1 + sum(size.consultations for size in sizes)
    requests = 1 + sum(size.requests for size in sizes)
    facts: dict[str, Any] = {
        "database": repository.database_name(),
        "asks": plan.url or "a gunicorn of its own on 127.0.0.1, with the settings of this deployment",
        "sends": f"{requests} requests a round, besides repetitions; rounds: {plan.rounds}; at once: {load.clients}",
        "rate": f"at most {load.share} new payments of one user (RATELIMIT_PAYMENTS)"
        + f", {plan.pace} requests a second on average" * (plan.url is not None),
        "writes": f"in each round {users} users and {consultations} consultations, with a payment each at the most",
        "ids": f"consultations within {FIRST_CONSULTATION} to {LAST_CONSULTATION}, where nothing else is",
        "money": f"none moves: method {method_by_hand()}, confirmed and refunded on the word of a user of its own",
        "removes": "all of it at the end of each round, and when it is interrupted"
        + f"; and first what a run that was killed has left: {left}" * (left.users > 0),
        "seed": plan.seed,
    }
    show_facts(facts, err=True)


def print_report(report: Report, plan: ProofPlan, *, as_json: bool) -> int:
    """Show the result for each promise; returns the exit status of the command."""
    verdicts = [_verdict(each.name, each.promise, report, plan) for each in plan.attacks]
    _show(verdicts, _total(report, plan, held=report.held), as_json=as_json)
    return 0 if report.held else 1


def _total(report: Report, plan: ProofPlan, *, held: bool) -> dict[str, Any]:
    return {
        "held": held,
        "seed": plan.seed,
        "clients": plan.load.clients,
        "rounds": report.rounds_done,
        "requests": sum(report.requests.values()),
        "sent_again": report.repeated,
        "rows_written_and_removed": report.rows_removed,
        "seconds": round(report.seconds, 1),
    }


def _verdict(name: str, promise: str, report: Report, plan: ProofPlan) -> dict[str, Any]:
    broken = [f"{violation.what}: {violation.detail}" for violation in report.violations[name]]
    return {
        "attack": name,
        "promise": promise,
        "held": not broken,
        "rounds": plan.rounds,
        "requests": report.requests[name],
        "broken": broken,
    }


def print_findings(report: Report) -> None:
    """Show the violations that an interrupted run had found so far."""
    for name, violations in report.violations.items():
        for violation in violations[:SHOWN_VIOLATIONS]:
            say(f"BROKEN  {name}: {violation.what}: {violation.detail}", err=True)


def print_faults(faults: Mapping[str, str], plan: ProofPlan, *, as_json: bool) -> int:
    """Show the failed readiness checks: the service accepts no payment, so there is nothing to attack. Returns 1."""
    broken = [f"{name}: {fault}" for name, fault in faults.items()]
    promise = "the service is ready to accept payments"
    verdict = {"attack": "none", "promise": promise, "held": False, "rounds": 0, "requests": 0, "broken": broken}
    empty_report = Report(violations={}, requests={})
    _show([verdict], _total(empty_report, plan, held=False), as_json=as_json)
    return 1


def print_removed(rows: int, *, as_json: bool) -> None:
    """Show how many rows of killed runs were removed."""
    if as_json:
        say_json({"rows_removed": rows})
        return
    say(f"{quantity(rows, 'row')} removed" if rows else "no rows to remove")


def _show(verdicts: list[dict[str, Any]], total: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        for row in (*verdicts, total):
            say_json(row)
        return
    names, promises = (max(len(verdict[column]) for verdict in verdicts) for column in ("attack", "promise"))
    for verdict in verdicts:
        result = "held" if verdict["held"] else "BROKEN"
        label = f"{verdict['attack']:<{names}}  {verdict['promise']:<{promises}}"
        say(f"{result:<6}  {label}  {verdict['requests']:>5} requests")
        for line in verdict["broken"][:SHOWN_VIOLATIONS]:
            say(f"        {line}")
        if len(verdict["broken"]) > SHOWN_VIOLATIONS:
            say(f"        and {len(verdict['broken']) - SHOWN_VIOLATIONS} more")
    held = sum(verdict["held"] for verdict in verdicts)
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in total.items() if name != "held")
    say(f"{held} of {len(verdicts)} promises held: {facts}")

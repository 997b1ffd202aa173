"""The ``payments`` commands, for staff and for the timers that expire and audit payments."""

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import asdict
from datetime import date, datetime, time, timedelta
from typing import Any

import click
from flask import current_app

from payments_app import clock, money
from payments_app.accounts.cli import users
from payments_app.accounts.repository import find_user
from payments_app.accounts.system_user import system_caller
from payments_app.commands import (
    DAY,
    ID,
    CommandFailed,
    CommandGroup,
    is_agreed,
    json_option,
    operator,
    quantity,
    say,
    say_json,
    show_facts,
    show_rows,
    with_progress,
)
from payments_app.consultations.cli import consultations
from payments_app.errors import GatewayUnavailable
from payments_app.gateways.base import PaymentLists
from payments_app.gateways.registry import configured_gateways
from payments_app.payments import audit, erase, expire, queries, reconcile, repository, review
from payments_app.payments.close import close
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import ExpiryResult
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.queries import Filter

payments = CommandGroup("payments", help="Manage payments.")

# Payments per query.
BATCH_SIZE = 100

# Exit status of a comparison that a gateway did not allow.
GATEWAY_SILENT = 3

# So long a webhook may be on its way.
MAY_BE_LATE = timedelta(minutes=15)

COLUMNS = ("id", "status", "amount", "refunded", "currency", "method", "patient", "consultation", "review", "created")


@payments.command("list")
@click.option("--status", type=click.Choice([str(status) for status in PaymentStatus]), help="Filter by status.")
@click.option("--consultation", type=ID, help="Only payments of this consultation.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Maximum number of rows.")
@json_option
def list_payments(status: str | None, consultation: int | None, limit: int, as_json: bool) -> None:
    """List payments, newest first."""
    rows = _newest(status, consultation, limit)
    show_rows(COLUMNS, map(_row, rows), as_json=as_json, nothing="no payments")


@payments.command("show")
@click.argument("payment_id", type=ID)
@json_option
def show_payment(payment_id: int, as_json: bool) -> None:
    """Show one payment with its refunds and its audit trail."""
    caller = system_caller()
    payment = repository.get(payment_id, caller=caller)
    trail = [
        {
            "when": event.created_at,
            "event": event.event,
            "status": event.to_status,
            "version": event.version,
            "who": event.actor,
            "reference": event.reference,
        }
        for event in repository.list_events(payment_id, caller=caller)
    ]
    refunds = [
        {"id": refund.id, "amount": money.to_text(refund.amount_minor), "status": refund.status}
        for refund in payment.refunds
    ]
    facts = {**_row(payment), **_more(payment)}
    if as_json:
        show_facts({**facts, "refunds": refunds, "events": trail}, as_json=True)
        return
    show_facts(facts, as_json=False)
    say()
    show_rows(("id", "amount", "status"), refunds, as_json=False, nothing="no refunds")
    say()
    show_rows(("when", "event", "status", "version", "who", "reference"), trail, as_json=False, nothing="no events")


@payments.command("expire")
@json_option
def expire_payments(as_json: bool) -> None:
    """Expire pending payments that were not paid in time, and free their consultations; end old requests for refunds.

    The limit is PAYMENT_PENDING_TTL, or PAYMENT_MANUAL_TTL for payments that staff confirm by hand. The gateway's
    session is ended first. If the gateway does not answer, the payment stays pending until the next run. Sessions of
    payments that were paid by an older session are ended too. A refund that nobody has approved within 7 days fails,
    and its amount is free again. The command may run at any time, and twice at once.
    """
    deadlines = Deadlines.at(clock.now(), current_app.config["SETTINGS"])
    results: Counter[ExpiryResult] = Counter()
    with_progress(
        expire.find_overdue(deadlines),
        lambda payment_id: results.update([expire.expire(payment_id, operator_context())]),
        label="Expiring",
        length=expire.count_overdue(deadlines),
    )
    sessions = expire.end_sessions_of_paid(operator_context())
    left = results[ExpiryResult.LEFT] + sessions[False]
    lapsed = expire.lapse_requests(operator_context())[True]
    if as_json:
        say_json(
            {
                "expired": results[ExpiryResult.EXPIRED],
                "paid": results[ExpiryResult.FOLLOWED],
                "left": left,
                "sessions_ended": sessions[True],
                "refunds_lapsed": lapsed,
            }
        )
        return
    say(f"{quantity(results[ExpiryResult.EXPIRED], 'payment')} expired")
    if results[ExpiryResult.FOLLOWED]:
        say(f"paid, cancelled or changed at the same moment: {results[ExpiryResult.FOLLOWED]}")
    if sessions[True]:
        say(f"{quantity(sessions[True], 'open session')} ended, of payments that were paid by an older session")
    if lapsed:
        say(f"{quantity(lapsed, 'refund')} failed, which nobody had approved within 7 days")
    if left:
        say(f"left for the next run, because their gateway did not answer: {left}")


@consultations.command("close")
@click.argument("consultation_id", type=ID)
@json_option
def close_consultation(consultation_id: int, as_json: bool) -> None:
    """Close a consultation, so that nobody can pay it any more; its pending payment is cancelled, at the gateway first.

    What was paid stays paid. One that is closed already stays as it is.
    """
    consultation = close(consultation_id, caller=system_caller(), context=operator_context())
    facts = {
        "consultation": consultation.id,
        "reference": consultation.reference,
        "status": consultation.status,
        "closed_at": consultation.closed_at,
        "active_payment": consultation.active_payment and consultation.active_payment.id,
    }
    show_facts(facts, as_json=as_json)


@users.command("erase")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def erase_user(user: str, yes: bool, as_json: bool) -> None:
    """Erase a patient's personal data: name, e-mail address, logins, links, and what was written about them.

    Payments, invoices and all ids stay. Refused while a payment, refund, review or dispute of theirs is not over. The
    id is the same afterwards, the e-mail address is not: run it again with the id.
    """
    patient = find_user(user)
    if not yes and not is_agreed(f"Erase {patient.name} <{patient.email}>? Nobody can undo it."):
        return
    try:
        is_everywhere = erase.erase(patient.id, operator_context())
    except erase.NotErasable as refused:
        raise CommandFailed(f"Nothing was erased: {refused}.") from None
    erased = find_user(str(patient.id))
    show_facts(
        {"id": erased.id, "email": erased.email, "name": erased.name, "erased_at": erased.erased_at}, as_json=as_json
    )
    if not is_everywhere:
        seconds = current_app.config["SETTINGS"].idempotency_cache_ttl_seconds
        say(f"Redis did not answer. It may have copies of responses for {seconds} s more: run it again.", err=True)
        raise SystemExit(1)


@payments.command("resolve-review")
@click.argument("payment_id", type=ID)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def end_review(payment_id: int, yes: bool, as_json: bool) -> None:
    """End the review of a payment after you have put the problem right.

    Refund money that does not belong to the payment first.
    """
    caller = system_caller()
    payment = repository.get(payment_id, caller=caller)
    question = f"End the review of payment {payment_id}? The problem must be put right already."
    if payment.needs_review and (yes or is_agreed(question)):
        review.end_review(payment_id, operator_context())
        payment = repository.get(payment_id, caller=caller)
    show_facts(_row(payment), as_json=as_json)


# Its old name, for one release.
_reviewed = copy(end_review)
_reviewed.hidden = True
payments.add_command(_reviewed, "reviewed")


@payments.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Print each violation as a line of JSON.")
def audit_payments(as_json: bool) -> None:
    """Check every payment against the promises of this service (M1 to M7, M10 to M12).

    Standard output has a line for each violation, for each payment that needs a review, with the refund to make, and
    for each dispute that the bank has not decided, with the time by which to answer. Progress and summary go to
    standard error. Exits with 1 if a promise is broken, otherwise with 0.
    """

    def show(rows: Iterable[audit.Violation]) -> int:
        count = 0
        for count, violation in enumerate(rows, start=1):  # noqa: B007  # the count is returned
            if as_json:
                say_json(asdict(violation))
            else:
                say(f"{violation.invariant}  payment {violation.payment_id}  {violation.detail}")
        return count

    broken = 0
    for number, check in enumerate(audit.CHECKS, start=1):
        say(f"{number:2} of {len(audit.CHECKS)}  {check.invariant}  {check.promise}", err=True)
        broken += show(audit.find_violations(check))
    reviews = show(audit.find_reviews()) + show(audit.find_shared_references())
    disputes = show(audit.find_disputes())
    audited = quantity(audit.count_payments(), "payment")
    verdict = quantity(broken, "violation") if broken else "all promises hold"
    say(f"{audited} audited: {verdict}; {reviews} to review, {disputes} disputed", err=True)
    raise SystemExit(1 if broken else 0)


@payments.command("reconcile")
@click.option("--gateway", help="Only this gateway. Default: all that list what they did.")
@click.option("--from", "first", type=DAY, default="yesterday", show_default=True, help="First day.")
@click.option("--to", "last", type=DAY, default="yesterday", show_default=True, help="Last day, compared too.")
@json_option
def reconcile_payments(gateway: str | None, first: date, last: date, as_json: bool) -> None:
    """Compare payments and refunds with the gateways' own books, and print a line for each that differs.

    Days are those of CLINIC_TIMEZONE: 2026-01-31, today or yesterday. The last 15 minutes are left out, because their
    webhooks may still be on the way. Exits with 0 if the books agree, with 1 if they do not, and with 3 if a gateway
    did not answer: nothing is said of its books then.
    """
    since, until = _period(first, last)
    compared = _comparable(gateway)
    differing = failed = 0
    for name, lists in compared.items():
        count = 0

        def tick(number: int) -> None:
            nonlocal count
            count += number
            say(f"{name}: {count} compared", err=True)  # noqa: B023  # called within this round

        try:
            differences = reconcile.Reconciliation(name, lists, since, until, tick).differences()
        except GatewayUnavailable as error:
            failed += 1
            say(f"{name}: nothing is known: {error.message}", err=True)
            continue
        for difference in differences:
            if as_json:
                say_json(asdict(difference))
            else:
                say(_in_words(difference))
        differing += len(differences)
        say(f"{name}: {count} of its payments and refunds compared, {len(differences)} differ", err=True)
    raise SystemExit(GATEWAY_SILENT if failed else 1 if differing else 0)


def _period(first: date, last: date) -> tuple[datetime, datetime]:
    """From the beginning of the first day to the end of the last one, or to what cannot change any more."""
    zone = current_app.config["SETTINGS"].clinic_timezone
    since = datetime.combine(first, time.min, zone)
    until = min(datetime.combine(last, time.min, zone) + timedelta(days=1), clock.now() - MAY_BE_LATE)
    if since >= until:
        raise CommandFailed("There is nothing to compare: --from is after --to, or too short a time ago.")
    return since, until


def _comparable(name: str | None) -> dict[str, PaymentLists]:
    lists: dict[str, PaymentLists] = {
        each: gateway for each, gateway in configured_gateways().items() if isinstance(gateway, PaymentLists)
    }
    if name is None:
        if not lists:
            say("No gateway is configured that lists what it did: nothing to compare.", err=True)
        return lists
    if name not in lists:
        raise CommandFailed(f"{name} is not configured, or does not list what it did.")
    return {name: lists[name]}


def _in_words(difference: reconcile.Difference) -> str:
    kind = difference.kind.replace("_", " ")
    whose = "" if difference.payment_id is None else f"  payment {difference.payment_id}"
    return f"{difference.gateway}  {kind}  {difference.subject} {difference.reference}{whose}  {difference.detail}"


def operator_context() -> AuditContext:
    """Audit context of the operator who runs the command: no request id, and the present time."""
    return AuditContext(operator(), None, clock.now())


def _newest(status: str | None, consultation_id: int | None, limit: int) -> Iterator[Any]:
    caller, after = system_caller(), None
    while limit > 0:
        filters = Filter(status=status, consultation_id=consultation_id, after=after, per_page=min(limit, BATCH_SIZE))
        page = queries.list_page(filters, caller=caller)
        yield from page.rows
        limit -= len(page.rows)
        if not page.has_more:
            return
        after = (page.rows[-1].created_at, page.rows[-1].id)


def _row(payment: Any) -> dict[str, Any]:
    return {
        "id": payment.id,
        "status": payment.status,
        "amount": money.to_text(payment.amount_minor),
        "refunded": money.to_text(payment.refunded_minor),
        "currency": payment.currency,
        "method": payment.payment_method,
        "patient": payment.user_id,
        "consultation": payment.consultation_id,
        "review": payment.needs_review,
        "created": payment.created_at,
    }


def _more(payment: Payment) -> dict[str, Any]:
    return {
        "gateway": payment.gateway,
        "transaction": payment.transaction_id,
        "received": money.to_text(payment.received_minor),
        "on_its_way_back": money.to_text(payment.refund_reserved_minor),
        "disputed": payment.is_disputed,
        "left_to_refund": money.to_text(payment.refundable_minor),
        "version": payment.version,
        "invoices": ", ".join(f"{invoice.invoice_number} {invoice.status}" for invoice in payment.invoices),
    }

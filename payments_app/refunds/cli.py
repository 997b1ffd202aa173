"""The ``refunds`` commands, for a clinic's front desk, and ``payments resume``, which settles open refunds."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import click
from flask import current_app

from payments_app import clock, money
from payments_app.accounts.repository import get_user
from payments_app.accounts.system_user import system_caller
from payments_app.commands import (
    ID,
    AmountType,
    CommandFailed,
    CommandGroup,
    is_agreed,
    json_option,
    say,
    say_json,
    show_facts,
    show_rows,
    with_progress,
)
from payments_app.errors import AppError, RefundRepeated, ValidationFailed
from payments_app.gateways.references import require_comparable
from payments_app.idempotency.headers import require_well_formed
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.payments import repository as payments_repository
from payments_app.payments import resume as resume_payments
from payments_app.payments.cli import operator_context
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.expire import ExpiryResult
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import MAX_REASON_LENGTH, Refund, RefundStatus
from payments_app.payments.repository import ChangeCommand, Conditions
from payments_app.refunds import repository, service
from payments_app.refunds.http import render_existing_refund, render_refund
from payments_app.refunds.repository import RefundFilter, RefundRequest

refunds = CommandGroup("refunds", help="Manage refunds.")

COLUMNS = ("id", "payment", "amount", "currency", "status", "by_hand", "reason", "created", "settled")

# Characters; the size of the column.
MAX_REFERENCE_LENGTH = 255

# Counts refunds that another process works on; a member of the output of --json, so the name stays.
LEASED = "in other hands"

TO_BE_SENT = (
    "Send the money to the patient, then record the transfer:\nflask --app wsgi refunds settle {id} --reference REF"
)

NEXT_STEPS = {
    RefundStatus.REQUESTED: "Nothing was sent. Another admin has to approve or reject it, by login (POST\n"
    "/api/v1/refunds/{id}/approve). It fails if nobody does so within 7 days.",
    RefundStatus.PENDING: "The refund is pending. Do nothing: the gateway's webhook settles it, or this does:\n"
    "flask --app wsgi payments resume",
    RefundStatus.UNKNOWN: "The gateway did not answer: the money may have been returned or not. Do not refund it again."
    "\nTo look up the outcome: flask --app wsgi payments resume",
    RefundStatus.SUCCEEDED: None,
    RefundStatus.FAILED: "No money was returned. You may try again.",
}


@refunds.command("create")
@click.argument("payment_id", type=ID)
@click.option("--amount", type=AmountType(), help="Amount, such as 1500 or 1500.50. Default: all that can be refunded.")
@click.option("--reason", help="Reason, kept with the refund.")
@click.option("--idempotency-key", "key", help="The same key again never refunds twice. Default: a new key.")
@click.option("--again", is_flag=True, help="Refund the same amount a second time, even shortly after the first.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def create_refund(
    *, payment_id: int, amount: int | None, reason: str | None, key: str | None, again: bool, yes: bool, as_json: bool
) -> None:
    """Refund a payment, or a part of it.

    Shows the patient and the amount that can be refunded, and asks for confirmation. If you do not see the result, give
    the same --idempotency-key again: it shows the refund's outcome, and no money is returned twice.
    """
    may_repeat = again or key is not None
    caller, key = system_caller(), require_well_formed(str(uuid.uuid4()) if key is None else key)
    if reason is not None and (len(reason) > MAX_REASON_LENGTH or not reason.isprintable()):
        raise CommandFailed(f"The reason must be one line of at most {MAX_REASON_LENGTH} characters.")
    payment = payments_repository.get(payment_id, caller=caller)
    if not yes:
        _confirm(payment, amount)
    parameters = {
        "payment_id": payment_id,
        "amount": None if amount is None else money.to_text(amount),
        "reason": reason,
    }
    change = ChangeCommand(
        payment_id=payment_id,
        caller=caller,
        request=IdempotentRequest(
            caller, key, "refund", parameters, render_existing_refund, replays_current_state=True
        ),
        context=operator_context(),
        # The operator agreed to the payment as it was shown: refuse if it has changed since.
        conditions=Conditions() if yes else Conditions(expected_version=payment.version),
    )
    settings = current_app.config["SETTINGS"]
    window_seconds = 0 if may_repeat else settings.refund_repeat_window_seconds
    refund_request = RefundRequest(amount, reason, new_since=service.repeats_since(change.context.at, window_seconds))
    try:
        response = service.refund(change, refund_request, terms=service.terms_of(settings), render=render_refund)
    except RefundRepeated as repeated:
        refund_id = (repeated.data or {})["refund_id"]
        raise CommandFailed(
            f"Refund {refund_id} of this payment, of the same amount, was requested a short time ago: look at it with"
            f" refunds show {refund_id}. To make a second one, give --again."
        ) from None
    _show_outcome(response, key, as_json=as_json)


@refunds.command("list")
@click.option("--status", type=click.Choice([str(status) for status in RefundStatus]), help="Filter by status.")
@click.option("--by-hand", is_flag=True, help="Only refunds whose money staff send.")
@click.option("--payment", "payment_id", type=ID, help="Only refunds of this payment.")
@click.option("--method", "payment_method", help="Only refunds of payments by this method.")
@click.option("--gateway", help="Only refunds of this gateway.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Maximum number of rows.")
@json_option
def list_refunds(
    *,
    status: str | None,
    by_hand: bool,
    payment_id: int | None,
    payment_method: str | None,
    gateway: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List refunds, newest first. Money to be sent: --status pending --by-hand. To be approved: --status requested."""
    shown = RefundFilter(
        status=status,
        by_hand=by_hand or None,
        payment_id=payment_id,
        payment_method=payment_method,
        gateway=gateway,
        per_page=service.BATCH_SIZE,
    )
    rows = _newest(shown, limit)
    show_rows(COLUMNS, map(_row, rows), as_json=as_json, nothing="no refunds")


@refunds.command("credit")
def issue_credit_notes() -> None:
    """Issue the credit notes that are missing, oldest refund first.

    Refunds that an earlier release has made have none. Each refund gets one at most, so this may run at any time.
    """
    refund_ids = list(service.find_without_note())
    with_progress(
        refund_ids, lambda refund_id: repository.issue_credit_note(refund_id, at=clock.now()), label="Credit notes"
    )
    say(f"{len(refund_ids)} credit notes issued")


@refunds.command("show")
@click.argument("refund_id", type=ID)
@json_option
def show_refund(refund_id: int, as_json: bool) -> None:
    """Show one refund, and the next step."""
    refund = repository.get(refund_id)
    facts = {
        **_row(refund),
        "gateway": refund.gateway,
        "gateways_name": refund.reference,
        "method": refund.method,
        "transfer": refund.transfer_reference,
        "requested_by": refund.requested_by,
        "approved_by": refund.approved_by,
        "declined_because": refund.decline_reason,
        "made_elsewhere": refund.made_elsewhere,
    }
    show_facts(facts, as_json=as_json)
    if not as_json:
        _print_next_step(refund)


# `payments resume`. It is here because payments know nothing of refunds: create_app adds it to their commands.
@click.command("resume")
@click.option("--send-again", "refund_id", type=ID, help="Send this one refund to its gateway once more.")
@click.option("--yes", is_flag=True, help="With --send-again: do not ask for confirmation.")
@json_option
def resume(refund_id: int | None, yes: bool, as_json: bool) -> None:
    """Finish refunds and payments whose outcome at the gateway is unknown.

    Asks no question and never returns money twice: it looks each refund up at the gateway first. It may run at any
    time, and twice at once. Whatever stays open is looked up again by the next run.

    --send-again ID is for an unknown refund that is at least 24 hours old and not in the gateway's dashboard. It is
    looked up once more, and sent again only if the gateway does not know it.
    """
    if refund_id is not None:
        _send_again(refund_id, yes=yes, as_json=as_json)
        return
    settings = current_app.config["SETTINGS"]
    now = clock.now()
    outcomes: Counter[str] = Counter()

    def resume_one(refund_id: int) -> None:
        try:
            refund = service.resume(refund_id, lease_seconds=settings.refund_lease_seconds, context=operator_context())
        except AppError as error:
            say(f"refund {refund_id} stays open: {error.message}", err=True)
            outcomes["open"] += 1
        else:
            outcomes[LEASED if refund is None else "open" if refund.is_open else refund.status] += 1

    with_progress(service.find_open(now), resume_one, label="Refunds", length=repository.count_open(now=now))
    results: Counter[ExpiryResult] = Counter()
    deadlines = Deadlines.at(now, settings)
    with_progress(
        resume_payments.find_processing(),
        lambda payment_id: results.update([resume_payments.resume(payment_id, deadlines, operator_context())]),
        label="Payments in processing",
        length=resume_payments.count_processing(),
    )
    _show_resumed(outcomes, results, as_json=as_json)


# Its old name, for one release.
_refunds_resume = copy(resume)
_refunds_resume.hidden = True
refunds.add_command(_refunds_resume, "resume")


@refunds.command("settle")
@click.argument("refund_id", type=ID)
@click.option("--reference", required=True, help="The reference of the transfer by which you have sent the money.")
@json_option
def settle_refund(refund_id: int, reference: str, as_json: bool) -> None:
    """Record that you have sent the money of a refund by hand.

    The same reference again changes nothing. One transfer returns the money of one refund.
    """
    caller, refund = system_caller(), repository.get(refund_id)
    reference = reference.strip()
    if not 0 < len(reference) <= MAX_REFERENCE_LENGTH or not reference.isprintable():
        raise CommandFailed(f"The reference must be one line of at most {MAX_REFERENCE_LENGTH} characters.")
    try:
        require_comparable(refund.gateway, reference, field="reference")
    except ValidationFailed:
        raise CommandFailed("The reference must have a letter or a digit, and must not be too long.") from None
    parameters = {"payment_id": refund.payment_id, "refund_id": refund_id, "reference": reference}
    change = ChangeCommand(
        payment_id=refund.payment_id,
        caller=caller,
        request=IdempotentRequest(caller, str(uuid.uuid4()), "settle-refund", parameters, render_existing_refund),
        context=operator_context(),
    )
    service.settle_by_hand(change, refund_id, reference, render=render_refund)
    _show_result(refund_id, as_json=as_json)


@refunds.command("give-up")
@click.argument("refund_id", type=ID)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def give_up_refund(refund_id: int, yes: bool, as_json: bool) -> None:
    """Close a refund whose money was not returned and will not be.

    An unknown one must be at least 24 hours old and not in the gateway's dashboard. It is looked up once more, and its
    outcome is recorded if the gateway has the refund after all. One by hand must not have been sent. The refund fails,
    and its reserved money can be refunded again.
    """
    by_hand = repository.get(refund_id).by_hand
    question = (
        "Is it certain that the money was not sent?"
        if by_hand
        else "Is the refund missing from the gateway's dashboard?"
    )
    if not yes and not is_agreed(question):
        say("nothing was changed", err=True)
        return
    lease_seconds = current_app.config["SETTINGS"].refund_lease_seconds
    if service.give_up(refund_id, lease_seconds=lease_seconds, context=operator_context()) is None:
        raise CommandFailed("The refund is settled, or another process works on it: see refunds show.")
    _show_result(refund_id, as_json=as_json)


def _send_again(refund_id: int, *, yes: bool, as_json: bool) -> None:
    if not yes and not is_agreed("Have you looked, and it is not in the gateway's dashboard?"):
        say("nothing was sent", err=True)
        return
    lease_seconds = current_app.config["SETTINGS"].refund_lease_seconds
    if service.send_again(refund_id, lease_seconds=lease_seconds, context=operator_context()) is None:
        raise CommandFailed("The refund is settled, or another process works on it: see refunds show.")
    _show_result(refund_id, as_json=as_json)


def _show_result(refund_id: int, *, as_json: bool) -> None:
    refund = repository.get(refund_id)
    if as_json:
        show_facts(_row(refund), as_json=True)
        return
    say(f"refund {refund.id} is {refund.status}")
    _print_next_step(refund)


def _confirm(payment: Payment, amount_minor: int | None) -> None:
    """Show the refund on standard error, and exit with 0 unless the operator agrees."""
    patient = get_user(payment.user_id)
    wanted_minor = payment.refundable_minor if amount_minor is None else amount_minor
    facts = {
        "payment": payment.id,
        "patient": f"{patient.name} ({patient.email})",
        "consultation": payment.consultation_id,
        "status": payment.status,
        "received": _money(payment.received_minor, payment),
        "refunded": _money(payment.refunded_minor, payment),
        "on_its_way_back": _money(payment.refund_reserved_minor, payment),
        "left": _money(payment.refundable_minor, payment),
    }
    show_facts(facts, err=True)
    say(err=True)
    if not is_agreed(f"Return {_money(wanted_minor, payment)} now?"):
        say("no money was returned", err=True)
        raise SystemExit(0)


def _show_outcome(response: StoredResponse, key: str, *, as_json: bool) -> None:
    parts = json.loads(response.body)["data"]
    if response.status == HTTPStatus.PAYMENT_REQUIRED:
        if repository.get(parts["refund_id"]).was_never_sent:
            raise CommandFailed(f"The refund was not sent; no money was returned. The reason: {parts['reason']}")
        raise CommandFailed(f"The gateway declined the refund; no money was returned. Its reason: {parts['reason']}")
    if as_json:
        say_json({**parts, "idempotency_key": key, "replayed": response.replayed})
        return
    refund = repository.get(parts["refund"]["id"])
    before = " (made before, under the same key)" if response.replayed else ""
    payment = refund.payment
    say(f"refund {refund.id} of payment {payment.id}: {_money(refund.amount_minor, payment)} {refund.status}{before}")
    say(f"payment {payment.id} is {payment.status.replace('_', ' ')}; idempotency key {key}")
    _print_next_step(refund)


def _print_next_step(refund: Refund) -> None:
    hint = TO_BE_SENT if refund.is_to_be_sent else NEXT_STEPS[RefundStatus(refund.status)]
    if hint is not None:
        say()
        for line in hint.format(id=refund.id).splitlines():
            say(line)


def _show_resumed(outcomes: Counter[str], results: Counter[ExpiryResult], *, as_json: bool) -> None:
    if as_json:
        payments = {
            "followed": results[ExpiryResult.FOLLOWED],
            "failed": results[ExpiryResult.FAILED],
            "left": results[ExpiryResult.LEFT],
        }
        say_json({"refunds": dict(outcomes), "payments": payments})
        return
    texts = {LEASED: "in progress elsewhere"}
    counts = [f"{count} {texts.get(outcome, outcome)}" for outcome, count in sorted(outcomes.items())]
    say(f"refunds: {', '.join(counts) or 'none open'}")
    moved = results[ExpiryResult.FOLLOWED] + results[ExpiryResult.FAILED]
    say(f"payments in processing: {moved} settled, {results[ExpiryResult.LEFT]} still in processing")
    if outcomes["open"]:
        say("To list the open ones: flask --app wsgi refunds list --status unknown (and --status pending)")


def _newest(shown: RefundFilter, limit: int) -> Iterator[Refund]:
    while limit > 0:
        page = repository.list_page(replace(shown, per_page=min(limit, shown.per_page)))
        yield from page.rows
        limit -= len(page.rows)
        if not page.has_more:
            return
        shown = replace(shown, before_id=page.rows[-1].id)


def _row(refund: Refund) -> dict[str, Any]:
    return {
        "id": refund.id,
        "payment": refund.payment_id,
        "amount": money.to_text(refund.amount_minor),
        "currency": refund.currency,
        "status": refund.status,
        "by_hand": refund.by_hand,
        "reason": refund.reason,
        "created": refund.created_at,
        "settled": refund.settled_at,
    }


def _money(amount_minor: int, payment: Payment) -> str:
    return f"{money.to_text(amount_minor)} {payment.currency}"

"""Disputes from the command line."""

from collections.abc import Iterator
from typing import Any

import click

from payments_app import money
from payments_app.commands import ID, CommandGroup, json_option, show_rows
from payments_app.gateways.events import DisputeStatus
from payments_app.payments.disputes import DisputeFilter, list_page
from payments_app.payments.models.dispute import Dispute

disputes = CommandGroup("disputes", help="See what patients' banks dispute.")

# Disputes read at a time.
BATCH_SIZE = 100

COLUMNS = ("id", "payment", "amount", "currency", "status", "reason", "answer_by", "gateway", "reference", "created")


@disputes.command("list")
@click.option("--status", type=click.Choice([str(status) for status in DisputeStatus]), help="Filter by status.")
@click.option("--payment", "payment_id", type=ID, help="Only disputes of this payment.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at the most.")
@json_option
def list_disputes(status: str | None, payment_id: int | None, limit: int, as_json: bool) -> None:
    """Show disputes and inquiries, newest first, with the time by which to answer."""
    found = _newest(status, payment_id, limit)
    show_rows(COLUMNS, map(_row, found), as_json=as_json, nothing="no disputes")


def _newest(status: str | None, payment_id: int | None, limit: int) -> Iterator[Dispute]:
    before_id: int | None = None
    while limit > 0:
        per_page = min(limit, BATCH_SIZE)
        page = list_page(DisputeFilter(status=status, payment_id=payment_id, before_id=before_id, per_page=per_page))
        yield from page.rows
        limit -= len(page.rows)
        if not page.has_more:
            return
        before_id = page.rows[-1].id


def _row(dispute: Dispute) -> dict[str, Any]:
    return {
        "id": dispute.id,
        "payment": dispute.payment_id,
        "amount": money.to_text(dispute.amount_minor),
        "currency": dispute.currency,
        "status": dispute.status,
        "reason": dispute.reason,
        "answer_by": dispute.due_at,
        "gateway": dispute.gateway,
        "reference": dispute.reference,
        "created": dispute.created_at,
    }

"""``flask idempotency prune``: keys stay forever, the requests and responses stored under them do not."""

import sys
from datetime import timedelta

import click
from flask import current_app

from payments_app import clock
from payments_app.commands import CommandGroup, quantity, say
from payments_app.idempotency import repository

idempotency = CommandGroup("idempotency", help="Manage idempotency keys.")

# Rows per transaction: a fraction of a second of work, so that requests do not wait for it.
BATCH_SIZE = 5_000


@idempotency.command("prune")
def prune() -> None:
    """Drop the stored requests and responses of keys older than IDEMPOTENCY_RETENTION.

    The keys stay: a replay gets the payment's present state. The command may run at any time, and twice at once.
    """
    before = clock.now() - timedelta(seconds=current_app.config["SETTINGS"].idempotency_retention_seconds)
    total = repository.count_whole(before)
    pruned = 0
    with click.progressbar(length=total, label="Pruning", file=sys.stderr) as bar:
        while count := repository.prune_batch(before=before, size=BATCH_SIZE):
            pruned += count
            bar.update(count)
    say(f"{quantity(pruned, 'key')} pruned")

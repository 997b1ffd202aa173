"""``flask idempotency prune``: keys are kept for ever, what was asked and answered under them is not."""

import sys
from datetime import timedelta

import click
from flask import current_app

from payments_app import clock
from payments_app.commands import CommandGroup, say
from payments_app.idempotency import repository

idempotency = CommandGroup("idempotency", help="Manage idempotency keys.")

# Rows a transaction: a fraction of a second of work, so that nobody waits behind it.
BATCH_SIZE = 5_000


@idempotency.command("prune")
def prune() -> None:
    """Drop request and answer of keys older than IDEMPOTENCY_RETENTION.

    The keys stay: used again, they answer with what the payment has become. May run at any time, also twice at once.
    """
    before = clock.now() - timedelta(seconds=current_app.config["SETTINGS"].idempotency_retention_seconds)
    total = repository.count_whole(before)
    pruned = 0
    with click.progressbar(length=total, label="Pruning", file=sys.stderr) as bar:
        while count := repository.prune_batch(before=before, size=BATCH_SIZE):
            pruned += count
            bar.update(count)
    say(f"{pruned} keys pruned")

"""``flask demo seed``: something to try the service with, within a minute of cloning it."""

import sys

import click
from flask import current_app

from payments_app.accounts import passwords
from payments_app.commands import CommandGroup, say
from payments_app.demo import repository
from payments_app.demo.people import PASSWORD, PATIENT, USERS

demo = CommandGroup("demo", help="Data to try the service with.")

# Consultations a statement: small enough to show progress, large enough that the statement's own cost vanishes.
BATCH_SIZE = 20_000


@demo.command("seed")
@click.option(
    "--consultations", "count", type=click.IntRange(1), default=20, show_default=True, help="How many; ids from 1."
)
def seed(count: int) -> None:
    """Add the demo users, and unpaid consultations without a fee for patient@test.com.

    Seeding again changes nothing that is there. Refused in production.
    """
    settings = current_app.config["SETTINGS"]
    if settings.is_production:
        raise click.UsageError("demo data has a published password: not in production")
    password_hash = passwords.hash_password(PASSWORD)
    ids = {
        email: repository.add_user(email=email, name=name, role=role, password_hash=password_hash)
        for email, name, role in USERS
    }
    batches = range(1, count + 1, BATCH_SIZE)
    with click.progressbar(batches, label="Consultations", file=sys.stderr) as firsts:
        for first in firsts:
            last = min(first + BATCH_SIZE - 1, count)
            repository.add_consultations(
                patient_id=ids[PATIENT], first=first, last=last, currency=settings.payment_currency
            )
    say(f"{len(USERS)} users, password '{PASSWORD}': {', '.join(ids)}")
    say(f"consultations 1 to {count} of {PATIENT}")

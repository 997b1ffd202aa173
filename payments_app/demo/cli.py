"""The command ``demo seed``: users and consultations to try the service with."""

import sys

import click
from flask import current_app

from payments_app.accounts import passwords
from payments_app.commands import CommandGroup, say
from payments_app.demo import repository
from payments_app.demo.people import PASSWORD, PATIENT, USERS

demo = CommandGroup("demo", help="Add demo data.")

# Consultations per statement: small enough to show progress, large enough that the cost per statement does not matter.
BATCH_SIZE = 20_000


@demo.command("seed")
@click.option(
    "--consultations",
    "count",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Number of consultations; ids start at 1.",
)
def seed(count: int) -> None:
    """Add the demo users, and unpaid consultations without a fee for patient@test.com.

    Existing rows stay as they are. Refused in production.
    """
    settings = current_app.config["SETTINGS"]
    if settings.is_production:
        raise click.UsageError("demo data is not allowed in production: its password is published")
    password_hash = passwords.hash_password(PASSWORD)
    ids = {
        email: repository.add_user(email=email, name=name, role=role, password_hash=password_hash)
        for email, name, role in USERS
    }
    batches = range(1, count + 1, BATCH_SIZE)
    with click.progressbar(batches, label="Consultations", file=sys.stderr) as bar:
        for first in bar:
            last = min(first + BATCH_SIZE - 1, count)
            repository.add_consultations(
                patient_id=ids[PATIENT], first=first, last=last, currency=settings.payment_currency
            )
    say(f"{len(USERS)} users, password '{PASSWORD}': {', '.join(ids)}")
    say(f"consultations 1 to {count} of {PATIENT}")

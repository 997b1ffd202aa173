"""The ``demo`` commands: users, consultations, a payment link and a booking site to try the service with."""

import signal
import sys
from datetime import timedelta
from pathlib import Path

import click
from flask import current_app

from config import LAST_PORT
from payments_app.accounts import passwords
from payments_app.accounts.system_user import system_caller
from payments_app.commands import CommandFailed, CommandGroup, say
from payments_app.demo import repository, runner, service
from payments_app.demo.people import PASSWORD, PATIENT, USERS
from payments_app.demo.runner import Program
from payments_app.payment_links import address
from payments_app.payment_links import repository as payment_links
from payments_app.payment_links.repository import NewLink

demo = CommandGroup("demo", help="Add demo data, and run the demo.")

ROOT = Path(__file__).parents[2]

# Consultations per statement: small enough to show progress, large enough that the cost per statement does not matter.
BATCH_SIZE = 20_000

PORT_NUMBER = click.IntRange(1, LAST_PORT)

# Longer than somebody leaves a demo running.
LINK_LIFETIME = timedelta(days=7)


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
    _refuse_in_production()
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


@demo.command("link")
def link() -> None:
    """Print a payment link, for a week, of the last consultation of patient@test.com that is not paid.

    It begins with PUBLIC_URL. Refused in production.
    """
    _refuse_in_production()
    base, consultation_id = current_app.config["SETTINGS"].public_url, repository.find_unpaid(PATIENT)
    if base is None:
        raise CommandFailed("PUBLIC_URL is not set: links begin with it, such as http://127.0.0.1:8000.")
    if consultation_id is None:
        say("(every consultation is paid: make clean begins anew)")
        return
    new = NewLink(consultation_id=consultation_id, return_url=None, lifetime=LINK_LIFETIME)
    _, token = payment_links.create(new, caller=system_caller())
    say(address.of_token(base, token))


@demo.command("run")
@click.option("--port", envvar="PORT", type=PORT_NUMBER, default=8000, show_default=True, help="Of the service.")
@click.option(
    "--site-port", envvar="SITE_PORT", type=PORT_NUMBER, default=8080, show_default=True, help="Of the booking site."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where the booking site keeps its API key and its bookings; by default instance/.",
)
def run(port: int, site_port: int, folder: Path | None) -> None:
    """Run the service, the sender of webhooks, and the example of a booking site, until Ctrl-C.

    If one of them ends, all do. The service may send webhooks to this machine. Refused in production.
    """
    settings = current_app.config["SETTINGS"]
    _refuse_in_production()
    if port == site_port:
        raise CommandFailed("PORT and SITE_PORT are the same: the service and the booking site need one each.")
    folder = (folder or Path(current_app.instance_path)).resolve()
    origin = f"http://127.0.0.1:{site_port}"
    ours = {
        "PORT": str(port),
        "WEBHOOK_ALLOW_PRIVATE": "1",
        "RETURN_URL_ORIGINS": ",".join(sorted({*settings.return_url_origins, origin})),
    }
    site = {
        "PAYMENTS_URL": f"http://127.0.0.1:{port}",
        "PAYMENTS_KEY": service.get_or_create_key(folder / "booking-site.key"),
        "WEBHOOK_SECRET": service.get_or_create_endpoint(f"{origin}/webhooks"),
        "SITE_URL": origin,
        "BOOKINGS": str(folder / "booking-site.db"),
    }
    server = ("gunicorn", "--bind", f"127.0.0.1:{site_port}", "--threads", "4", "--no-control-socket")
    programs = [
        Program(name="The service", command=("gunicorn",), folder=ROOT, environment=ours),
        Program(
            name="The sender of webhooks",
            command=("flask", "--app", "wsgi", "webhooks", "send"),
            folder=ROOT,
            environment=ours,
        ),
        Program(
            name="The booking site",
            command=(*server, "--log-level", "warning", "app:app"),
            folder=ROOT / "examples/booking-site",
            environment=site,
        ),
    ]
    # As Ctrl-C does: an exception, so that the processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ended = runner.run(programs)
    except KeyboardInterrupt:
        return
    raise CommandFailed(ended)


def _refuse_in_production() -> None:
    if current_app.config["SETTINGS"].is_production:
        raise click.UsageError("demo data is not allowed in production: its password is published")

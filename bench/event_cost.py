"""Measures what the event of a new payment, which the feed shows, costs a create: ``python -m bench.event_cost``.

A create inserts the event's row in its own statement. The event's position, and so its place in the feed, comes later
from those who read. So creates as they are alternate with creates whose statement leaves the event out, in batches in
one process. That is more than the feed costs: the audit trail needs the row without a feed too.
"""

from unittest.mock import patch

import click

from bench.environment import FIRST_UNPAID, Store
from bench.in_process import REQUESTS, WARM_UP, Requests, send
from payments_app.accounts.models import Role
from payments_app.db.statement import DirectStatement
from payments_app.payments import create, create_statement
from payments_app.payments.create_statement import Statements
from tests.support.apps import app_with
from tests.support.databases import make_postgresql
from tests.support.people import People


def _statements_without_event() -> Statements:
    # Two equal tables are one in the statement.
    with patch.object(create_statement, "EVENTS", create_statement.TAX_RECORDS):
        return Statements(DirectStatement(create_statement._one_statement(by_link=False)), [])  # noqa: SLF001


@click.command()
@click.option("--batches", default=40, show_default=True, help="Batches of each of the two.")
def main(batches: int) -> None:
    """Print the least milliseconds of processor time of a create, with its event and without, and their ratio."""
    database = make_postgresql()
    without_event = patch.multiple(create, STATEMENTS=_statements_without_event(), _event_row=lambda *_: {})
    try:
        with app_with(database.url, RATELIMIT_PAYMENTS="1000000 per minute") as app:
            people = People(app)
            payments = 2 * (batches * REQUESTS + WARM_UP)
            # One more, because Requests makes a payment of its own.
            people.add_consultations(Role.PATIENT, FIRST_UNPAID, FIRST_UNPAID + payments)
            environs = Requests(Store(database.url, people.patient, people.admin), payments).create()

            def batch(requests: int = REQUESTS) -> float:
                return send(app, [next(environs) for _ in range(requests)]) / requests * 1000

            def batch_without_event(requests: int = REQUESTS) -> float:
                with without_event:
                    return batch(requests)

            batch(WARM_UP)
            batch_without_event(WARM_UP)
            pairs = [(batch(), batch_without_event()) for _ in range(batches)]
            with_it, without_it = (min(times) for times in zip(*pairs, strict=True))
    finally:
        database.close()
    click.echo(f"create {with_it:.3f} ms; without its event {without_it:.3f} ms, {without_it / with_it:.2f} of it")


if __name__ == "__main__":
    main()

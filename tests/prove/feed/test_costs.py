"""A position and a page of the feed cost the same, however many events wait and however many lie before the page."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, text

from payments_app.db.engine import lift_time_limits
from payments_app.events import positions, repository
from payments_app.events.repository import FeedFilter, Position
from tests.support.apps import app_with, engine_of
from tests.support.fresh_databases import fresh_database
from tests.support.people import People
from tests.support.recorded_figures import note
from tests.support.statements import statements_sent

EVENTS_SHORT, EVENTS_LONG = 10_000, 1_000_000
# Events of one payment, and of one page.
PER_PAYMENT, PAGE = 10, 100
# The plan may change with the size of a table that grew from nothing: not by more than this factor.
FLAT = 2.0


def load(connection: Connection, patient_id: int, events: int) -> None:
    payments = events // PER_PAYMENT
    connection.execute(
        text(
            "INSERT INTO consultations (id, patient_id, currency, created_at, updated_at)"
            f" SELECT 100 + n, :patient, 'PHP', now(), now() FROM generate_series(1, {payments}) n"
        ),
        {"patient": patient_id},
    )
    connection.execute(
        text(
            "INSERT INTO payments (id, user_id, consultation_id, amount_minor, currency, payment_method, gateway,"
            " status, received_minor, refund_reserved_minor, refunded_minor, needs_review, version, created_at,"
            " updated_at) SELECT 1000000 + n, :patient, 100 + n, 500000, 'PHP', 'stripe', 'sandbox', 'cancelled',"
            f" 0, 0, 0, false, 1, now(), now() FROM generate_series(1, {payments}) n"
        ),
        {"patient": patient_id},
    )
    connection.execute(
        text(
            "INSERT INTO payment_events (id, payment_id, event, to_status, version, actor, created_at)"
            f" SELECT 1000000 + n, 1000000 + 1 + n % {payments}, 'payment.created', 'pending', n / {payments}, 'tests',"
            f" timestamptz '2026-01-01' + n * interval '1 millisecond' FROM generate_series(0, {events} - 1) n"
        )
    )


def blocks_of(connection: Connection, run: Callable[[], Any], sent: list[tuple[str, Any]], words: str) -> int:
    """Blocks that the statement with these words touches; it is found by running it, and then explained."""
    sent.clear()
    run()
    statement, parameters = next((sql, given) for sql, given in sent if words in sql)
    (explained,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters).one()
    plan = explained[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def place(engine: Engine, number: int) -> Position:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT id, created_at FROM payment_events WHERE position = :number"), {"number": number}
        ).one()
    return Position(number, found.id, found.created_at)


def test_positions_and_pages_cost_the_same_at_any_depth(*, is_long: bool) -> None:
    events = EVENTS_LONG if is_long else EVENTS_SHORT
    with fresh_database("postgresql") as database, app_with(database.url) as app, app.app_context():
        lift_time_limits()
        engine, people = engine_of(app), People(app)
        with engine.begin() as connection:
            load(connection, people.patient.id, events)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            batches, pages = [], []
            with statements_sent(engine) as sent:
                # Each look gives two batches: one by the service, one by the statement that is explained.
                while positions.is_any_waiting():
                    batches.append(blocks_of(connection, positions.give_batch, sent, "UPDATE payment_events"))
                connection.execute(text("VACUUM ANALYZE payment_events"))
                for depth in (1, events // 2, events - 2 * PAGE):
                    shown = FeedFilter(after=place(engine, depth), limit=PAGE)
                    pages.append(blocks_of(connection, lambda: repository.read_page(shown), sent, "looked_at"))  # noqa: B023  # called at once

            numbers = connection.execute(
                text("SELECT count(DISTINCT position), max(position) FROM payment_events")
            ).one()
    assert tuple(numbers) == (events, events)
    full = [blocks for blocks in batches if blocks > max(batches) / 10]  # the last one may have found nothing
    note("feed_costs", events=events, blocks_of_a_batch=[min(full), max(full)], blocks_of_a_page=pages)
    assert max(full) <= FLAT * min(full)
    assert max(pages) <= FLAT * min(pages)

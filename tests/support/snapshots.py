"""An app with a fake gateway whose state can be restored, and described without ids and times."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, insert, select

from payments_app import clock
from payments_app.readiness import current_readiness
from payments_app.refunds import service
from tests.support.apps import app_with, engine_of
from tests.support.databases import TABLES, Database, delete_all, empty, unsynced
from tests.support.fake_gateway import Books
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe import FakeStripe
from tests.support.operations import Operation, OperationResult, Resume
from tests.support.paymongo_apps import PayMongoApp, fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, fake_stripe, stripe_settings

# An app and the only gateway that it asks.
Shop = StripeApp | PayMongoApp

# Tables that an operation may change; users stay.
CHANGING = [table for table in TABLES if table.name != "users"]

# A lease longer than any test; a test that needs its end sets it in the database.
LASTING = {"GATEWAY_TIMEOUT": "5", "REFUND_LEASE": "600"}

# How often a client repeats a request before the test fails.
MOST_REPETITIONS = 5


@contextmanager
def stripe_app_on_empty(database: Database) -> Iterator[StripeApp]:
    """An app, a Stripe, a patient with consultations 1 to 20, and an admin, on a database that was emptied."""
    with fake_stripe() as fake, app_with(database.url, **stripe_settings(fake, **LASTING)) as app:
        empty(engine_of(app))
        people = People(app, patient=range(1, 21))
        yield StripeApp(fake, app, people)


@contextmanager
def hosted_app_on_empty(database: Database) -> Iterator[StripeApp]:
    """The same, and patients pay on Stripe's own page."""
    hosted = {"STRIPE_CHECKOUT": "hosted", "PUBLIC_URL": "https://pay.example.org"}
    with fake_stripe() as fake, app_with(database.url, **stripe_settings(fake, **LASTING, **hosted)) as app:
        empty(engine_of(app))
        yield StripeApp(fake, app, People(app, patient=range(1, 21)))


@contextmanager
def paymongo_app_on_empty(database: Database) -> Iterator[PayMongoApp]:
    """The same with PayMongo, which carries all methods but cash."""
    with fake_paymongo() as fake, app_with(database.url, **paymongo_settings(fake, **LASTING)) as app:
        empty(engine_of(app))
        yield PayMongoApp(fake, app, People(app, patient=range(1, 21)))


@dataclass
class StoredState:
    """The rows of the database and the objects at the gateway at one moment."""

    rows: dict[str, list[dict[str, Any]]]
    # What the fake remembered, for the same fake.
    gateway: Any


class Snapshot:
    """The state of an app's database and gateway, stored when this is made."""

    def __init__(self, shop: Shop) -> None:
        self.fake: FakeStripe | FakePayMongo = shop.fake
        self.app, self.people = shop.app, shop.people
        self.engine: Engine = engine_of(shop.app)
        self.rows = Rows(self.engine)
        self._kept = self._keep()

    def _keep(self) -> StoredState:
        return StoredState(self._read(), self.fake.remember())

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        """All rows, in the order of their keys: PostgreSQL gives rows that were put back in any order."""
        with self.engine.begin() as connection:  # as Rows does
            return {
                table.name: [dict(row) for row in connection.execute(_IN_ORDER[table.name]).mappings()]
                for table in CHANGING
            }

    def put_back(self) -> None:
        """Restore the stored state."""
        with unsynced(self.engine) as connection:
            delete_all(connection, CHANGING)
            for table in CHANGING:
                if self._kept.rows[table.name]:
                    connection.execute(insert(table), self._kept.rows[table.name])
        self.fake.recall(self._kept.gateway)
        with self.app.app_context():  # run the readiness check now: in a schedule it would block the other threads
            assert current_readiness().run_checks() == {}

    def changed(self) -> set[str]:
        """The tables whose rows differ from the stored state."""
        now = self._read()
        return {name for name, rows in self._kept.rows.items() if now[name] != rows}

    def finish(self, operation: Operation, result: OperationResult | None) -> OperationResult:
        """Repeat a request as a client does, as long as the result asks for it or there is none.

        Open refunds are resumed in between, after the end of their leases.
        """
        for _ in range(MOST_REPETITIONS):
            if result is not None and not result.ask_again:
                return result
            result = operation.do(self.app)
            self.resume_all()
        assert result is not None
        assert not result.ask_again, f"it never ends: {result}"
        return result

    def end_leases(self) -> None:
        """As if time had passed."""
        self.rows.execute("UPDATE refunds SET leased_until = created_at WHERE settled_at IS NULL")

    def resume_all(self) -> None:
        """Resume open refunds as the timer does, after the end of all leases."""
        if not self.rows.count("refunds", "status IN ('pending', 'unknown')"):
            return
        self.end_leases()
        with self.app.app_context():
            found = list(service.find_open(clock.now()))
        for refund_id in found:
            Resume(refund_id).do(self.app)

    def look(self) -> "SeenState":
        """The present state."""
        return SeenState(self._read(), self.fake.books())

    def violations(self) -> list[dict[str, Any]]:
        return self.rows.violations()


_IN_ORDER = {table.name: select(table).order_by(*table.primary_key) for table in CHANGING}


class SeenState:
    """The state of the database and of the gateway at one moment, described without ids and times."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]], books: Books) -> None:
        self._rows = rows
        self._books = books
        rows["payments"].sort(key=lambda payment: (payment["consultation_id"], payment["created_at"], payment["id"]))
        self._names = {payment["id"]: f"payment {number}" for number, payment in enumerate(rows["payments"], 1)}

    @property
    def fingerprint(self) -> str:
        """All rows; states with the same fingerprint have the same violations."""
        rows = {table: [dict(self._described(row)) for row in rows] for table, rows in self._rows.items()}
        return json.dumps(rows, sort_keys=True)

    def _described(self, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        yield "payment", self._names.get(row["id"] if "consultation_id" in row else row.get("payment_id"))
        for name, value in row.items():
            if name not in _SAYS_NOTHING and not name.endswith("_at"):
                yield name, value

    def state(self) -> str:
        """The part that matters, sorted wherever the order does not matter."""
        state = {
            "payments": [self._payment(payment) for payment in self._rows["payments"]],
            "closed": sorted(each["id"] for each in self._rows["consultations"] if each["closed_at"] is not None),
            "revoked": sorted(
                each["consultation_id"] for each in self._rows["payment_links"] if each["revoked_at"] is not None
            ),
            "sessions": sorted(
                (self._names[each["payment_id"]], self._session_status(each))
                for each in self._rows["gateway_sessions"]
                # Nobody can pay by one that was cancelled, or that nobody was given.
                if each["status"] not in ("cancelled", "expired", "lost", "opening")
            ),
            "keys": self._of("idempotency_keys", "user_id", "key", "operation"),
            "webhooks": self._of("webhook_events", "event_id"),
            "payable": self._books.payable,
            "returned": sorted(self._books.returned.values()),
        }
        return json.dumps(state, indent=1, sort_keys=True)

    def _payment(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        trail = self._belonging("payment_events", payment)
        return {
            **{name: payment[name] for name in _OF_PAYMENT},
            # Changes of status in order; other events without, because two refunds may be requested in any order.
            "moves": [
                (each["event"], each["from_status"], each["to_status"])
                for each in trail
                if each["from_status"] != each["to_status"]
            ],
            "events": Counter(each["event"] for each in trail),
            "invoices": [(each["status"], each["amount_minor"]) for each in self._belonging("invoices", payment)],
            "tax": [each["amount_minor"] for each in self._belonging("tax_records", payment)],
            "refunds": sorted(self._refund(each) for each in self._belonging("refunds", payment)),
            "disputes": sorted(each["status"] for each in self._belonging("disputes", payment)),
        }

    def _refund(self, refund: Mapping[str, Any]) -> tuple[Any, ...]:
        """With the amount of the refund at the gateway that has the stored reference."""
        amount, _ = self._books.returned.get(refund["reference"] or "", (None, ""))
        return (*(refund[name] for name in _OF_REFUND), "at the gateway", amount)

    def _session_status(self, session: Mapping[str, Any]) -> str:
        """A paid session may still be stored as open, until the gateway's event arrives."""
        (payment,) = [each for each in self._rows["payments"] if each["id"] == session["payment_id"]]
        return "succeeded" if session["status"] == "open" and payment["received_minor"] else session["status"]

    def _belonging(self, table: str, payment: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [row for row in self._rows[table] if row["payment_id"] == payment["id"]]

    def _of(self, table: str, *columns: str) -> list[list[str]]:
        return sorted(
            [self._names.get(row["payment_id"], "none"), *(str(row[name]) for name in columns)]
            for row in self._rows[table]
        )


_OF_PAYMENT = (
    "consultation_id",
    "status",
    "version",
    "transaction_id",
    "received_minor",
    "refund_reserved_minor",
    "refunded_minor",
    "needs_review",
    "review_held",
    "is_disputed",
    "review_of_dispute",
)
_OF_REFUND = ("amount_minor", "excess_minor", "status", "made_elsewhere")
# Ids, and values that contain ids.
_SAYS_NOTHING = {
    "id", "payment_id", "refund_id", "invoice_number", "request_id", "key", "reference", "request", "request_hash",
    "response_body", "leased_until", "sent_at_version",
}  # fmt: skip

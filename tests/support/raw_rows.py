"""Writes rows into the tables without the app's checks, so that only the database can refuse them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Constraint, Engine, ForeignKeyConstraint, Index, Table
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import ColumnCollectionConstraint

from payments_app.db.base import Base
from payments_app.payments.models.refund import OPEN
from payments_app.payments.models.status import PAID

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

# Above all ids that the app gives in a test.
FIRST_ID = 1_000_000_000

# One payment in minor units.
AMOUNT_MINOR = 500_000


class Raw:
    """Inserts and changes rows; a row is valid except for the columns that the test passes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last_id = FIRST_ID

    def insert(self, table: str, **row: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(_table(table).insert().values(**row))

    def update(self, table: str, row_id: int, **changes: Any) -> None:
        rows = _table(table)
        with self._engine.begin() as connection:
            result = connection.execute(rows.update().where(rows.c.id == row_id).values(**changes))
        assert result.rowcount == 1

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def link(self, consultation_id: int, created_by: int, **otherwise: Any) -> int:
        """A payment link that has ended; its id."""
        link_id = self.new_id()
        sound = {
            "id": link_id,
            "consultation_id": consultation_id,
            "token_hash": f"{link_id:064x}",
            "created_by": created_by,
            "created_at": MOMENT,
            "expires_at": MOMENT + timedelta(days=1),
        }
        self.insert("payment_links", **{**sound, **otherwise})
        return link_id

    def api_key(self, user_id: int, **otherwise: Any) -> int:
        key_id = self.new_id()
        sound = {
            "id": key_id,
            "user_id": user_id,
            "name": "raw",
            "prefix": "cpk_raw",
            "key_hash": f"{key_id:064x}",
            "scopes": "payments:read",
            "created_by": "tests",
            "created_at": MOMENT,
        }
        self.insert("api_keys", **{**sound, **otherwise})
        return key_id

    def payment(self, user_id: int, consultation_id: int, status: str = "pending", **otherwise: Any) -> int:
        """Insert a payment that is consistent with its status; returns its id."""
        payment_id = self.new_id()
        paid = status in PAID
        sound = {
            "id": payment_id,
            "user_id": user_id,
            "consultation_id": consultation_id,
            "amount_minor": AMOUNT_MINOR,
            "currency": "PHP",
            "payment_method": "stripe",
            "gateway": "sandbox",
            "status": status,
            "transaction_id": f"TXN-{payment_id}" if paid else None,
            "receipt_url": None,
            "received_minor": AMOUNT_MINOR if paid else 0,
            "refund_reserved_minor": 0,
            "refunded_minor": {"partially_refunded": 1, "refunded": AMOUNT_MINOR}.get(status, 0),
            "needs_review": False,
            "version": 0,
            "created_at": MOMENT,
            "updated_at": MOMENT,
            "completed_at": MOMENT if paid else None,
            "deleted_at": None,
        }
        self.insert("payments", **{**sound, **otherwise})
        return payment_id

    def invoice(self, payment_id: int, **otherwise: Any) -> int:
        invoice_id = self.new_id()
        sound = {
            "id": invoice_id,
            "payment_id": payment_id,
            "invoice_number": f"INV-20260131093000-{invoice_id}",
            "amount_minor": AMOUNT_MINOR,
            "currency": "PHP",
            "status": "pending",
            "issued_at": MOMENT,
            "paid_at": None,
        }
        self.insert("invoices", **{**sound, **otherwise})
        return invoice_id

    def tax_record(self, payment_id: int, **otherwise: Any) -> int:
        tax_record_id = self.new_id()
        sound = {
            "id": tax_record_id,
            "payment_id": payment_id,
            "tax_type": "VAT",
            "tax_rate_basis_points": 1_200,
            "taxable_amount_minor": AMOUNT_MINOR,
            "amount_minor": 60_000,
            "status": "calculated",
        }
        self.insert("tax_records", **{**sound, **otherwise})
        return tax_record_id

    def event(self, payment_id: int, **otherwise: Any) -> int:
        event_id = self.new_id()
        sound = {
            "id": event_id,
            "payment_id": payment_id,
            "event": "payment.created" if otherwise.get("version", 0) == 0 else "payment.changed",
            "from_status": None,
            "to_status": "pending",
            "version": 0,
            "actor": "patient:1",
            "request_id": None,
            "created_at": MOMENT,
        }
        self.insert("payment_events", **{**sound, **otherwise})
        return event_id

    def key(self, user_id: int, payment_id: int, **otherwise: Any) -> None:
        sound = {
            "user_id": user_id,
            "key": f"key-{self.new_id()}",
            "operation": "create",
            "request": "{}",
            "request_hash": "0" * 64,
            "payment_id": payment_id,
            "refund_id": None,
            "response_status": 201,
            "response_body": "{}",
            "created_at": MOMENT,
        }
        self.insert("idempotency_keys", **{**sound, **otherwise})

    def session(self, payment_id: int, **otherwise: Any) -> int:
        session_id = self.new_id()
        sound = {
            "id": session_id,
            "payment_id": payment_id,
            "gateway": "sandbox",
            "reference": f"session-{session_id}",
            "status": "open",
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
        self.insert("gateway_sessions", **{**sound, **otherwise})
        return session_id

    def refund(self, payment_id: int, **otherwise: Any) -> int:
        """Insert a refund, by default one that succeeded; the payment's amounts are left to the test."""
        refund_id = self.new_id()
        is_open = otherwise.get("status") in OPEN
        sound = {
            "id": refund_id,
            "payment_id": payment_id,
            "amount_minor": AMOUNT_MINOR,
            "excess_minor": 0,
            "currency": "PHP",
            "status": "succeeded",
            "reason": None,
            "decline_reason": None,
            "gateway": "sandbox",
            "reference": f"refund-{refund_id}",
            "made_elsewhere": False,
            "leased_until": MOMENT,
            "version": 0,
            "created_at": MOMENT,
            "settled_at": None if is_open else MOMENT,
        }
        self.insert("refunds", **{**sound, **otherwise})
        return refund_id

    def credit_note(self, payment_id: int, **otherwise: Any) -> int:
        """With an invoice of its own."""
        note_id = self.new_id()
        sound = {
            "id": note_id,
            "payment_id": payment_id,
            "invoice_id": self.invoice(payment_id),
            "series": "CN",
            "number": note_id,
            "amount_minor": AMOUNT_MINOR,
            "tax_minor": 60_000,
            "currency": "PHP",
            "status": "issued",
            "issued_at": MOMENT,
            "voided_at": None,
        }
        self.insert("credit_notes", **{**sound, **otherwise})
        return note_id

    def dispute(self, payment_id: int, **otherwise: Any) -> int:
        dispute_id = self.new_id()
        sound = {
            "id": dispute_id,
            "payment_id": payment_id,
            "gateway": "sandbox",
            "reference": f"dispute-{dispute_id}",
            "amount_minor": AMOUNT_MINOR,
            "currency": "PHP",
            "reason": "fraudulent",
            "status": "needs_response",
            "due_at": None,
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
        self.insert("disputes", **{**sound, **otherwise})
        return dispute_id

    def webhook_endpoint(self, **otherwise: Any) -> int:
        endpoint_id = self.new_id()
        sound = {
            "id": endpoint_id,
            "url": "https://example.org/hook",
            "types": "*",
            "secret": "whsec_AAAA",
            "position": 0,
            "attempts_delivered": 0,
            "attempts_failed": 0,
            "created_by": "tests",
            "created_at": MOMENT,
        }
        self.insert("webhook_endpoints", **{**sound, **otherwise})
        return endpoint_id

    def webhook_delivery(self, endpoint_id: int | None = None, event_id: int | None = None, **otherwise: Any) -> int:
        """A ping, unless an event is named."""
        delivery_id = self.new_id()
        sound = {
            "id": delivery_id,
            "endpoint_id": self.webhook_endpoint() if endpoint_id is None else endpoint_id,
            "event_id": event_id,
            "position": 0,
            "status": "pending",
            "attempts": 0,
            "next_attempt_at": MOMENT,
            "created_at": MOMENT,
        }
        self.insert("webhook_deliveries", **{**sound, **otherwise})
        return delivery_id

    def webhook_event(self, payment_id: int | None = None, **otherwise: Any) -> None:
        sound = {
            "gateway": "stripe",
            "event_id": f"evt_{self.new_id()}",
            "type": "payment_intent.succeeded",
            "reference": "pi_1",
            "payment_id": payment_id,
            "created_at": MOMENT,
            "received_at": MOMENT,
        }
        self.insert("webhook_events", **{**sound, **otherwise})

    def user(self, **otherwise: Any) -> int:
        user_id = self.new_id()
        sound = {
            "id": user_id,
            "email": f"user-{user_id}@example.com",
            "name": "A user",
            "role": "patient",
            "password_hash": "none",
            "token_version": 0,
            "disabled_at": None,
            "created_at": MOMENT,
        }
        self.insert("users", **{**sound, **otherwise})
        return user_id

    def consultation(self, patient_id: int, **otherwise: Any) -> int:
        consultation_id = self.new_id()
        sound = {
            "id": consultation_id,
            "patient_id": patient_id,
            "fee_minor": None,
            "currency": "PHP",
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
        self.insert("consultations", **{**sound, **otherwise})
        return consultation_id


@contextmanager
def refused_by(constraint: str) -> Iterator[None]:
    """The block has to break this constraint, and no other."""
    with pytest.raises(IntegrityError) as refusal:
        yield
    assert_broken(refusal.value, constraint)


def assert_broken(error: IntegrityError, constraint: str) -> None:
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        assert diagnosis.constraint_name == constraint
    else:
        assert str(error.orig) == sqlite_text(constraint)


def sqlite_text(constraint: str) -> str:
    """SQLite's message for a broken constraint of the models."""
    for table in Base.metadata.tables.values():
        known: list[Constraint | Index] = [*table.constraints, *table.indexes]
        for each in known:
            if each.name != constraint:
                continue
            if isinstance(each, CheckConstraint):
                return f"CHECK constraint failed: {constraint}"
            if isinstance(each, ForeignKeyConstraint):
                return "FOREIGN KEY constraint failed"
            assert isinstance(each, ColumnCollectionConstraint | Index)
            columns = ", ".join(f"{table.name}.{column.name}" for column in each.columns)
            return f"UNIQUE constraint failed: {columns}"
    raise LookupError(constraint)


def _table(name: str) -> Table:
    return Base.metadata.tables[name]

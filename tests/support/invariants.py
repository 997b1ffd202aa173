"""Compares responses with the database: nothing acknowledged is lost, and nothing was done twice."""

from flask import Flask

from tests.support.commands import CommandRunner
from tests.support.fake_stripe import FakeStripe
from tests.support.retrying_clients import REFUNDED_MINOR, Acknowledged, Load
from tests.support.rows import Rows
from tests.support.waiting import wait_until

# Payments with the rows that are made with each, by idempotency key.
_MADE = """
SELECT k.key, p.consultation_id, p.id AS payment_id, p.status, p.version, i.status AS invoice,
  (SELECT count(*) FROM invoices x WHERE x.payment_id = p.id) AS invoices,
  (SELECT count(*) FROM tax_records t WHERE t.payment_id = p.id AND t.amount_minor = 60000) AS tax_records,
  (SELECT count(*) FROM payment_events e WHERE e.payment_id = p.id AND e.event = 'payment.created') AS created,
  (SELECT count(*) FROM payment_events e WHERE e.payment_id = p.id AND e.from_status = 'pending') AS completed
FROM payments p JOIN invoices i ON i.payment_id = p.id
JOIN idempotency_keys k ON k.payment_id = p.id AND k.operation = :operation
WHERE p.consultation_id BETWEEN :first AND :last
"""

_TWICE = """
SELECT consultation_id FROM payments
WHERE status IN ('pending', 'processing', 'completed', 'partially_refunded') AND deleted_at IS NULL
GROUP BY consultation_id HAVING count(*) > 1
"""


def assert_kept(load: Load, rows: Rows, app: Flask) -> None:
    """Everything acknowledged is in the database, once, and the audit finds nothing."""
    resume_what_is_open(rows, app)
    _assert_payments_kept(load, rows)
    _assert_confirmations_kept(load, rows)
    _assert_refunds_kept(load, rows)
    assert rows.all(_TWICE) == []
    assert rows.violations() == []


def assert_charged_once(load: Load, gateway: FakeStripe) -> None:
    """The gateway has charged each confirmed payment once, and refunded each refunded one once; and no others."""
    payment_ids = [each.payment_id for each in load.payments]
    charged: dict[int, list[str]] = {}
    for intent in gateway.intents.values():
        charged.setdefault(int(intent["metadata"]["payment_id"]), []).append(intent["status"])
    assert [key for key in payment_ids if charged.get(key) != ["succeeded"]] == []
    refunded: dict[int, list[tuple[int, str]]] = {}
    for refund in gateway.refunds.values():
        refunded.setdefault(int(refund["metadata"]["payment_id"]), []).append((refund["amount"], refund["status"]))
    once = {each.payment_id: [(REFUNDED_MINOR, "succeeded")] for each in load.refunds}
    assert {payment_id: refunded[payment_id] for payment_id in payment_ids if payment_id in refunded} == once


def resume_what_is_open(rows: Rows, app: Flask) -> None:
    """Run ``refunds resume`` on refunds of killed processes, once their leases have ended."""
    wait_until(lambda: rows.count("refunds", "settled_at IS NULL AND leased_until > now()") == 0)
    CommandRunner(app).ok("refunds", "resume")
    assert rows.count("refunds", "settled_at IS NULL") == 0


def _assert_payments_kept(load: Load, rows: Rows) -> None:
    made = _by_key(rows, "create", load)
    for acknowledged in load.payments:
        row = _row_of(acknowledged, made)
        assert (row["consultation_id"], row["payment_id"]) == (acknowledged.consultation_id, acknowledged.payment_id)
        assert (row["invoices"], row["tax_records"], row["created"]) == (1, 1, 1)
    # Each consultation has one payment, and each refused client was told its id.
    of_consultation = {each.consultation_id: each.payment_id for each in load.payments}
    assert len(of_consultation) == len(load.payments)
    assert {each.payment_id for each in load.refused} <= set(of_consultation.values())
    assert all(of_consultation[each.consultation_id] == each.payment_id for each in load.refused)
    # All clients repeated their requests until they had a response, so there is no payment without one.
    assert len(made) == len(load.payments)


def _assert_confirmations_kept(load: Load, rows: Rows) -> None:
    made = _by_key(rows, "confirm", load)
    for acknowledged in load.confirmed:
        row = _row_of(acknowledged, made)
        assert row["payment_id"] == acknowledged.payment_id
        assert row["status"] in ("completed", "partially_refunded")
        assert (row["invoice"], row["completed"]) == ("paid", 1)
    assert len(made) == len(load.confirmed)


def _assert_refunds_kept(load: Load, rows: Rows) -> None:
    if not load.refunds:
        return
    payment_ids = [each.payment_id for each in load.refunds]
    returned = rows.all(
        "SELECT payment_id, refunds.amount_minor, refunds.status, refunded_minor, refund_reserved_minor FROM refunds"
        " JOIN payments ON payments.id = payment_id WHERE payment_id = ANY(:payment_ids) ORDER BY payment_id",
        payment_ids=payment_ids,
    )
    assert returned == [
        {
            "payment_id": payment_id,
            "amount_minor": REFUNDED_MINOR,
            "status": "succeeded",
            "refunded_minor": REFUNDED_MINOR,
            "refund_reserved_minor": 0,
        }
        for payment_id in sorted(payment_ids)
    ]


def _row_of(acknowledged: Acknowledged, made: dict[str, dict[str, object]]) -> dict[str, object]:
    assert acknowledged.key in made, f"acknowledged, and gone: {acknowledged}"
    return made[acknowledged.key]


def _by_key(rows: Rows, operation: str, load: Load) -> dict[str, dict[str, object]]:
    first, last = load.consultations[0], load.consultations[-1]
    return {row["key"]: row for row in rows.all(_MADE, operation=operation, first=first, last=last)}

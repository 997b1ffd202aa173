"""What clients were told, held against the database: nothing acknowledged is lost, and nothing was done twice."""

from flask import Flask

from payments_app.payments import audit
from tests.support.commands import CommandRunner
from tests.support.retrying_clients import REFUNDED_MINOR, Acknowledged, Load
from tests.support.rows import Rows
from tests.support.waiting import wait_until

# A payment with each of the rows that are made with it, by the key that asked for it.
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
    """Everything that was acknowledged is there, once, and the audit finds nothing."""
    resume_what_is_open(rows, app)
    _assert_payments_kept(load, rows)
    _assert_confirmations_kept(load, rows)
    _assert_refunds_kept(load, rows)
    assert rows.all(_TWICE) == []
    with app.app_context():
        assert [offender for check in audit.CHECKS for offender in audit.find_violations(check)] == []


def resume_what_is_open(rows: Rows, app: Flask) -> None:
    """Refunds that a killed process left behind, by the command of the timer, once their leases have run out."""
    wait_until(lambda: rows.count("refunds", "settled_at IS NULL AND leased_until > now()") == 0)
    CommandRunner(app).ok("refunds", "resume")
    assert rows.count("refunds", "settled_at IS NULL") == 0


def _assert_payments_kept(load: Load, rows: Rows) -> None:
    made = _by_key(rows, "create", load)
    for told in load.payments:
        row = _row_of(told, made)
        assert (row["consultation_id"], row["payment_id"]) == (told.consultation_id, told.payment_id)
        assert (row["invoices"], row["tax_records"], row["created"]) == (1, 1, 1)
    # One winner, and whoever was refused was told of that one.
    of_consultation = {told.consultation_id: told.payment_id for told in load.payments}
    assert len(of_consultation) == len(load.payments)
    assert {told.payment_id for told in load.refused} <= set(of_consultation.values())
    assert all(of_consultation[told.consultation_id] == told.payment_id for told in load.refused)
    # Everybody asked until they were answered, so nothing is there that nobody knows of.
    assert len(made) == len(load.payments)


def _assert_confirmations_kept(load: Load, rows: Rows) -> None:
    made = _by_key(rows, "confirm", load)
    for told in load.confirmed:
        row = _row_of(told, made)
        assert row["payment_id"] == told.payment_id
        assert row["status"] in ("completed", "partially_refunded")
        assert (row["invoice"], row["completed"]) == ("paid", 1)
    assert len(made) == len(load.confirmed)


def _assert_refunds_kept(load: Load, rows: Rows) -> None:
    if not load.refunds:
        return
    told_of = [told.payment_id for told in load.refunds]
    returned = rows.all(
        "SELECT payment_id, refunds.amount_minor, refunds.status, refunded_minor, refund_reserved_minor FROM refunds"
        " JOIN payments ON payments.id = payment_id WHERE payment_id = ANY(:told) ORDER BY payment_id",
        told=told_of,
    )
    assert returned == [
        {
            "payment_id": payment_id,
            "amount_minor": REFUNDED_MINOR,
            "status": "succeeded",
            "refunded_minor": REFUNDED_MINOR,
            "refund_reserved_minor": 0,
        }
        for payment_id in sorted(told_of)
    ]


def _row_of(told: Acknowledged, made: dict[str, dict[str, object]]) -> dict[str, object]:
    assert told.key in made, f"acknowledged, and gone: {told}"
    return made[told.key]


def _by_key(rows: Rows, operation: str, load: Load) -> dict[str, dict[str, object]]:
    first, last = load.consultations[0], load.consultations[-1]
    return {row["key"]: row for row in rows.all(_MADE, operation=operation, first=first, last=last)}

"""What the database itself refuses, whoever asks: the app's last line of defence, tried behind the app's back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Engine, inspect
from sqlalchemy.exc import IntegrityError

from payments_app.db.base import Base
from payments_app.db.errors import BROKEN_CONSTRAINTS, constraint_meaning
from payments_app.payments.models.refund import RefundStatus
from payments_app.payments.models.status import ACTIVE, ENDED_UNPAID, PAID, PaymentStatus
from tests.support.people import People
from tests.support.raw_rows import AMOUNT_MINOR, MOMENT, Raw, assert_broken, refused_by, sqlite_text
from tests.support.rows import Rows

ENDED = (*ENDED_UNPAID, PaymentStatus.REFUNDED)

# Every column that holds money. Nobody is to add one that is not in minor units.
MONEY = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if column.name.endswith("_minor")
]

# A consultation without a fee; a session of an earlier release, or one that a webhook has told of.
MAY_BE_UNKNOWN = {
    ("consultations", "fee_minor"),
    ("gateway_sessions", "amount_minor"),
    ("payment_events", "refund_amount_minor"),
}

# Each CHECK of each table, and the changes to a sound row that break it. A payment starts in the status given.
BROKEN_PAYMENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("ck_payments_status_known", "pending", {"status": "paid"}),
    ("ck_payments_status_known", "pending", {"status": "PENDING"}),
    ("ck_payments_status_known", "pending", {"status": ""}),
    ("ck_payments_version_not_negative", "pending", {"version": -1}),
    ("ck_payments_amount_positive", "pending", {"amount_minor": 0}),
    ("ck_payments_amount_positive", "pending", {"amount_minor": -1}),
    ("ck_payments_money_not_negative", "pending", {"received_minor": -1}),
    ("ck_payments_money_not_negative", "pending", {"refund_reserved_minor": -1}),
    ("ck_payments_money_not_negative", "completed", {"refunded_minor": -1}),
    # Below nothing on one side does not make room on the other.
    ("ck_payments_money_not_negative", "completed", {"refund_reserved_minor": -1, "refunded_minor": AMOUNT_MINOR + 1}),
    ("ck_payments_refunds_within_received", "completed", {"refund_reserved_minor": AMOUNT_MINOR + 1}),
    ("ck_payments_refunds_within_received", "completed", {"refunded_minor": AMOUNT_MINOR + 1}),
    (
        "ck_payments_refunds_within_received",
        "partially_refunded",
        {"refund_reserved_minor": AMOUNT_MINOR, "refunded_minor": 1},
    ),
    ("ck_payments_refunds_within_received", "completed", {"received_minor": 1, "refund_reserved_minor": 2}),
    ("ck_payments_refunds_within_received", "pending", {"refund_reserved_minor": 1}),
    ("ck_payments_refunds_within_received", "cancelled", {"received_minor": 1, "refunded_minor": 2}),
    *(
        ("ck_payments_paid_has_money", status, {"refunded_minor": 0, **missing})
        for status in PAID
        for missing in ({"received_minor": 0}, {"transaction_id": None}, {"completed_at": None})
    ),
    *(("ck_payments_deleted_without_money", status, {"deleted_at": MOMENT}) for status in (*ACTIVE, "refunded")),
    *(
        ("ck_payments_deleted_without_money", status, {"deleted_at": MOMENT, "received_minor": 1})
        for status in ENDED_UNPAID
    ),
]
BROKEN_ELSEWHERE: list[tuple[str, str, dict[str, Any]]] = [
    ("ck_users_role_known", "user", {"role": "root"}),
    ("ck_users_role_known", "user", {"role": "Admin"}),
    ("ck_users_email_lower_case", "user", {"email": "Patient@example.com"}),
    ("ck_consultations_id_positive", "consultation", {"id": 0}),
    ("ck_consultations_fee_positive", "consultation", {"fee_minor": 0}),
    ("ck_consultations_fee_positive", "consultation", {"fee_minor": -1}),
    ("ck_gateway_sessions_status_known", "session", {"status": "closed"}),
    ("ck_gateway_sessions_reference_known", "session", {"reference": None}),
    ("ck_gateway_sessions_reference_known", "session", {"reference": None, "status": "succeeded"}),
    ("ck_invoices_amount_positive", "invoice", {"amount_minor": 0}),
    ("ck_invoices_amount_positive", "invoice", {"amount_minor": -1}),
    ("ck_invoices_status_known", "invoice", {"status": "completed"}),
    ("ck_tax_records_rate_a_fraction", "tax_record", {"tax_rate_basis_points": 10_001}),
    ("ck_tax_records_rate_a_fraction", "tax_record", {"tax_rate_basis_points": -1}),
    ("ck_tax_records_amounts_not_negative", "tax_record", {"taxable_amount_minor": 0}),
    ("ck_tax_records_amounts_not_negative", "tax_record", {"amount_minor": -1}),
    ("ck_idempotency_keys_request_hash_sha256", "key", {"request_hash": "0" * 63}),
    ("ck_id_blocks_next_id_positive", "id_block", {"table_name": "more", "next_id": 0}),
    ("ck_refunds_amount_positive", "refund", {"amount_minor": 0}),
    ("ck_refunds_excess_within_amount", "refund", {"made_elsewhere": True, "excess_minor": -1}),
    ("ck_refunds_excess_within_amount", "refund", {"made_elsewhere": True, "excess_minor": AMOUNT_MINOR + 1}),
    ("ck_refunds_ours_fit", "refund", {"excess_minor": 1}),
    ("ck_refunds_status_known", "refund", {"status": "completed"}),
    ("ck_refunds_status_known", "refund", {"status": "PENDING"}),
    ("ck_refunds_settled_when_over", "refund", {"status": "succeeded", "settled_at": None}),
    ("ck_refunds_settled_when_over", "refund", {"status": "failed", "settled_at": None}),
    ("ck_refunds_settled_when_over", "refund", {"status": "pending", "settled_at": MOMENT}),
    ("ck_refunds_settled_when_over", "refund", {"status": "unknown", "settled_at": MOMENT}),
    ("ck_refunds_settled_when_over", "refund", {"status": "requested", "settled_at": MOMENT}),
    ("ck_refunds_version_not_negative", "refund", {"version": -1}),
    ("ck_refunds_second_person", "refund", {"requested_by": 1, "approved_by": 1}),
    ("ck_refunds_second_person", "refund", {"requested_by": None, "approved_by": 1}),
    ("ck_refunds_by_hand_has_reference", "refund", {"by_hand": True}),
    ("ck_credit_notes_number_positive", "credit_note", {"number": 0}),
    ("ck_credit_notes_tax_within_amount", "credit_note", {"tax_minor": AMOUNT_MINOR + 1}),
    ("ck_credit_notes_tax_within_amount", "credit_note", {"amount_minor": 0, "tax_minor": 0}),
    ("ck_credit_notes_status_known", "credit_note", {"status": "paid"}),
    ("ck_credit_notes_voided_when_void", "credit_note", {"status": "void"}),
    ("ck_credit_notes_voided_when_void", "credit_note", {"voided_at": MOMENT}),
    ("ck_credit_note_counters_last_number_positive", "counter", {"series": "XX", "last_number": 0}),
    ("ck_payment_links_lives", "link", {"expires_at": MOMENT}),
    ("ck_api_keys_lives", "api_key", {"expires_at": MOMENT}),
    ("ck_disputes_amount_positive", "dispute", {"amount_minor": 0}),
    ("ck_disputes_amount_positive", "dispute", {"amount_minor": -1}),
    ("ck_disputes_status_known", "dispute", {"status": "warning_closed"}),
    ("ck_disputes_status_known", "dispute", {"status": "LOST"}),
    (
        "ck_webhook_endpoints_disabled_reason_known",
        "webhook_endpoint",
        {"disabled_at": MOMENT, "disabled_reason": "tired"},
    ),
    ("ck_webhook_endpoints_disabled_for_a_reason", "webhook_endpoint", {"disabled_at": MOMENT}),
    ("ck_webhook_endpoints_disabled_for_a_reason", "webhook_endpoint", {"disabled_reason": "gone"}),
    ("ck_webhook_deliveries_status_known", "webhook_delivery", {"status": "sent"}),
    ("ck_webhook_deliveries_attempts_not_negative", "webhook_delivery", {"attempts": -1}),
    ("ck_webhook_deliveries_delivered_at_a_time", "webhook_delivery", {"status": "delivered"}),
    ("ck_webhook_deliveries_delivered_at_a_time", "webhook_delivery", {"delivered_at": MOMENT}),
]


@pytest.fixture
def raw(engine: Engine) -> Raw:
    return Raw(engine)


@pytest.fixture
def patient(people: People) -> int:
    """The id of the patient whose consultations 1 to 20 are."""
    return people.patient.id


# M1: one active payment per consultation


@pytest.mark.parametrize("first", ACTIVE)
def test_beside_an_active_payment_no_second_one_is_taken(first: str, raw: Raw, rows: Rows, patient: int) -> None:
    raw.payment(patient, 5, first)

    for second in ACTIVE:
        with refused_by("uq_payments_active_consultation"):
            raw.payment(patient, 5, second)

    assert rows.count("payments") == 1


@pytest.mark.parametrize("ended", ENDED)
def test_an_ended_payment_frees_its_consultation_for_one_other(ended: str, raw: Raw, rows: Rows, patient: int) -> None:
    raw.payment(patient, 5, ended)

    for following in ENDED:  # any number of them
        raw.payment(patient, 5, following)
    raw.payment(patient, 5, "pending")

    with refused_by("uq_payments_active_consultation"):
        raw.payment(patient, 5, "pending")
    assert rows.count("payments", "consultation_id = 5") == len(ENDED) + 2


@pytest.mark.parametrize("ended", ENDED_UNPAID)
def test_a_soft_deleted_payment_frees_its_consultation(ended: str, raw: Raw, rows: Rows, patient: int) -> None:
    raw.payment(patient, 5, ended, deleted_at=MOMENT)

    raw.payment(patient, 5, "completed")

    assert rows.count("payments", "consultation_id = 5") == 2


@pytest.mark.parametrize("active", ACTIVE)
def test_an_ended_payment_does_not_come_back_beside_an_active_one(active: str, raw: Raw, patient: int) -> None:
    ended_id = raw.payment(patient, 5, "expired")
    raw.payment(patient, 5, active)

    with refused_by("uq_payments_active_consultation"):
        raw.update(
            "payments",
            ended_id,
            status="completed",
            received_minor=AMOUNT_MINOR,
            transaction_id="late",
            completed_at=MOMENT,
        )


def test_an_active_payment_does_not_move_to_a_consultation_that_has_one(raw: Raw, patient: int) -> None:
    raw.payment(patient, 5)
    payment_id = raw.payment(patient, 6)

    with refused_by("uq_payments_active_consultation"):
        raw.update("payments", payment_id, consultation_id=5)


# M3 and the other CHECKs


@pytest.mark.parametrize(("constraint", "status", "broken"), BROKEN_PAYMENTS)
def test_a_payment_that_cannot_be_true_is_neither_taken_nor_made_of_another(
    constraint: str, status: str, broken: dict[str, Any], *, raw: Raw, rows: Rows, patient: int
) -> None:
    with refused_by(constraint):
        raw.payment(patient, 5, **{"status": status, **broken})
    assert rows.count("payments") == 0

    payment_id = raw.payment(patient, 5, status)
    before = rows.one("SELECT * FROM payments")
    with refused_by(constraint):
        raw.update("payments", payment_id, **broken)
    assert rows.one("SELECT * FROM payments") == before


@pytest.mark.parametrize(("constraint", "kind", "broken"), BROKEN_ELSEWHERE)
def test_what_belongs_to_a_payment_cannot_be_untrue_either(
    constraint: str, kind: str, broken: dict[str, Any], raw: Raw, patient: int
) -> None:
    payment_id = raw.payment(patient, 5)
    add: dict[str, Callable[..., Any]] = {
        "user": raw.user,
        "consultation": lambda **row: raw.consultation(patient, **row),
        "session": lambda **row: raw.session(payment_id, **row),
        "invoice": lambda **row: raw.invoice(payment_id, **row),
        "tax_record": lambda **row: raw.tax_record(payment_id, **row),
        "key": lambda **row: raw.key(patient, payment_id, **row),
        "refund": lambda **row: raw.refund(payment_id, **row),
        "credit_note": lambda **row: raw.credit_note(payment_id, **row),
        "counter": lambda **row: raw.insert("credit_note_counters", **row),
        "link": lambda **row: raw.link(5, patient, **row),
        "dispute": lambda **row: raw.dispute(payment_id, **row),
        "api_key": lambda **row: raw.api_key(patient, **row),
        "webhook_endpoint": raw.webhook_endpoint,
        "webhook_delivery": raw.webhook_delivery,
        "id_block": lambda **row: raw.insert("id_blocks", **row),
    }

    with refused_by(constraint):
        add[kind](**broken)

    if kind not in ("id_block", "counter"):
        add[kind]()  # and sound as it stands


def test_every_check_has_a_case_above() -> None:
    checks = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }

    assert {constraint for constraint, *_ in (*BROKEN_PAYMENTS, *BROKEN_ELSEWHERE)} == checks


@pytest.mark.parametrize("status", PAID)
def test_all_that_was_received_may_be_on_its_way_back_or_be_back(status: str, raw: Raw, patient: int) -> None:
    payment_id = raw.payment(patient, 5, status, refunded_minor=0)

    raw.update("payments", payment_id, refund_reserved_minor=AMOUNT_MINOR)
    raw.update("payments", payment_id, refund_reserved_minor=AMOUNT_MINOR - 1, refunded_minor=1)
    raw.update("payments", payment_id, refund_reserved_minor=0, refunded_minor=AMOUNT_MINOR)


# M4 and M5: one key, one effect; one transaction, one payment


def test_a_key_of_a_user_is_taken_once_whatever_for_but_another_user_may_have_the_same(
    raw: Raw, rows: Rows, people: People, patient: int
) -> None:
    first_id, second_id = raw.payment(patient, 5), raw.payment(patient, 6)
    raw.key(patient, first_id, key="the-key")

    for payment_id in (first_id, second_id):
        for operation in ("create", "confirm", "cancel"):
            with refused_by("pk_idempotency_keys"):
                raw.key(patient, payment_id, key="the-key", operation=operation)

    raw.key(people.other.id, first_id, key="the-key")
    assert rows.count("idempotency_keys") == 2


def test_a_key_stands_for_a_user_and_a_payment_that_exist(raw: Raw, patient: int) -> None:
    payment_id = raw.payment(patient, 5)

    with refused_by("fk_idempotency_keys_user"):
        raw.key(patient + 1_000, payment_id)
    with refused_by("fk_idempotency_keys_payment"):
        raw.key(patient, payment_id + 1_000)


def test_one_gateway_transaction_pays_one_payment(raw: Raw, rows: Rows, patient: int) -> None:
    raw.payment(patient, 5, "completed", transaction_id="TXN-1")

    for status in PAID:
        with refused_by("uq_payments_transaction"):
            raw.payment(patient, 6, status, transaction_id="TXN-1")
    with refused_by("uq_payments_transaction"):  # nor money that came too late
        raw.payment(patient, 6, "cancelled", transaction_id="TXN-1", received_minor=1)

    raw.payment(patient, 6, "completed", transaction_id="TXN-1", gateway="manual")
    raw.payment(patient, 7, "completed", transaction_id="TXN-1", payment_method="gcash")
    assert rows.count("payments") == 3


def test_payments_without_a_transaction_do_not_stand_in_each_others_way(raw: Raw, rows: Rows, patient: int) -> None:
    for consultation_id in range(1, 4):
        raw.payment(patient, consultation_id, transaction_id=None)

    assert rows.count("payments") == 3


# Whose payment


def test_nobody_pays_a_consultation_that_is_not_theirs(raw: Raw, rows: Rows, people: People, patient: int) -> None:
    for stranger in (people.other.id, people.admin.id, patient + 1_000):
        with refused_by("fk_payments_consultation_patient"):
            raw.payment(stranger, 5)
    with refused_by("fk_payments_consultation_patient"):
        raw.payment(patient, 4_711)
    assert rows.count("payments") == 0

    payment_id = raw.payment(patient, 5)
    with refused_by("fk_payments_consultation_patient"):
        raw.update("payments", payment_id, user_id=people.other.id)


@pytest.mark.parametrize("status", PaymentStatus)
def test_a_consultation_that_ever_had_a_payment_keeps_its_patient(
    status: str, raw: Raw, rows: Rows, people: People, patient: int
) -> None:
    raw.payment(patient, 5, status)

    with refused_by("fk_payments_consultation_patient"):
        raw.update("consultations", 5, patient_id=people.other.id)

    assert rows.one("SELECT patient_id FROM consultations WHERE id = 5") == {"patient_id": patient}
    raw.update("consultations", 6, patient_id=people.other.id)


def test_nothing_that_a_payment_needs_can_be_deleted_under_it(raw: Raw, rows: Rows, patient: int) -> None:
    payment_id = raw.payment(patient, 5)
    raw.invoice(payment_id)

    with refused_by("fk_payments_consultation_patient"):
        rows.execute("DELETE FROM consultations WHERE id = 5")
    with refused_by("fk_invoices_payment"):
        rows.execute("DELETE FROM payments")
    assert rows.counts("payments", "invoices") == {"payments": 1, "invoices": 1}


def test_a_payment_with_a_refund_stays(raw: Raw, rows: Rows, patient: int) -> None:
    raw.refund(raw.payment(patient, 5, "completed"))

    with refused_by("fk_refunds_payment"):
        rows.execute("DELETE FROM payments")


@pytest.mark.parametrize(
    ("add", "constraint"),
    [
        (Raw.invoice, "fk_invoices_payment"),
        (Raw.tax_record, "fk_tax_records_payment"),
        (Raw.event, "fk_payment_events_payment"),
        (Raw.session, "fk_gateway_sessions_payment"),
        (Raw.refund, "fk_refunds_payment"),
        (Raw.webhook_event, "fk_webhook_events_payment"),
        (Raw.dispute, "fk_disputes_payment"),
    ],
)
def test_nothing_belongs_to_a_payment_that_does_not_exist(
    add: Callable[[Raw, int], int | None], constraint: str, raw: Raw
) -> None:
    with refused_by(constraint):
        add(raw, 4_711)


def test_a_consultation_has_a_patient_who_exists(raw: Raw, patient: int) -> None:
    with refused_by("fk_consultations_patient"):
        raw.consultation(patient + 1_000)


# The other things that are there once


def test_a_payment_has_one_open_session_at_a_time(raw: Raw, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5), raw.payment(patient, 6)
    session_id = raw.session(payment_id)

    with refused_by("uq_gateway_sessions_open"):
        raw.session(payment_id)
    raw.session(payment_id, status="cancelled")
    raw.session(payment_id, status="succeeded")
    raw.session(other_id)

    raw.update("gateway_sessions", session_id, status="cancelled")
    raw.session(payment_id)
    with refused_by("uq_gateway_sessions_open"):
        raw.update("gateway_sessions", session_id, status="open")


def test_a_payment_opens_one_session_at_a_time_and_counts_them(raw: Raw, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5), raw.payment(patient, 6)
    opening = {"status": "opening", "reference": None}
    raw.session(payment_id, number=1, **opening)

    with refused_by("uq_gateway_sessions_opening"):
        raw.session(payment_id, number=2, **opening)
    with refused_by("uq_gateway_sessions_number"):
        raw.session(payment_id, number=1, status="expired")
    raw.session(other_id, number=1, **opening)
    raw.session(payment_id, status="expired")
    raw.session(payment_id, status="expired")  # of an earlier release, or told of by a webhook: without a number


def test_a_gateways_reference_names_one_session(raw: Raw, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5), raw.payment(patient, 6)
    raw.session(payment_id, reference="pi_1")

    with refused_by("uq_gateway_sessions_reference"):
        raw.session(other_id, reference="pi_1")
    raw.session(other_id, reference="pi_1", gateway="stripe")


def test_an_invoice_number_is_given_once(raw: Raw, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5), raw.payment(patient, 6)
    raw.invoice(payment_id, invoice_number="INV-1")

    for payment in (payment_id, other_id):
        with refused_by("uq_invoices_invoice_number"):
            raw.invoice(payment, invoice_number="INV-1")


@pytest.mark.parametrize("status", RefundStatus)
def test_a_gateways_refund_is_written_down_once(status: str, raw: Raw, rows: Rows, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5, "completed"), raw.payment(patient, 6, "completed")
    raw.refund(payment_id, reference="re_1")

    for payment in (payment_id, other_id):
        with refused_by("uq_refunds_reference"):
            raw.refund(payment, reference="re_1", status=status)

    raw.refund(payment_id, reference="re_1", gateway="stripe", status=status)
    for _ in range(2):  # those that no gateway has named yet
        raw.refund(payment_id, reference=None, status=status)
    assert rows.count("refunds") == 4


def test_a_gateways_dispute_is_written_down_once(raw: Raw, rows: Rows, patient: int) -> None:
    payment_id, other_id = raw.payment(patient, 5, "completed"), raw.payment(patient, 6, "completed")
    raw.dispute(payment_id, reference="du_1")

    for payment in (payment_id, other_id):
        with refused_by("uq_disputes_reference"):
            raw.dispute(payment, reference="du_1", status="won")

    raw.dispute(payment_id, reference="du_1", gateway="stripe")
    raw.dispute(payment_id, reference="du_2")
    assert rows.count("disputes") == 3


def test_a_webhook_event_is_taken_in_once(raw: Raw, rows: Rows, patient: int) -> None:
    payment_id = raw.payment(patient, 5)
    raw.webhook_event(event_id="evt_1")

    for about in (None, payment_id):
        with refused_by("pk_webhook_events"):
            raw.webhook_event(about, event_id="evt_1", type="charge.refunded")

    raw.webhook_event(event_id="evt_1", gateway="another")
    assert rows.count("webhook_events") == 2


def test_an_address_has_one_user(raw: Raw, people: People) -> None:
    with refused_by("uq_users_email"):
        raw.user(email=people.patient.email)


@pytest.mark.parametrize(("table", "column"), [money for money in MONEY if money not in MAY_BE_UNKNOWN])
def test_money_is_never_unknown(table: str, column: str, raw: Raw, patient: int) -> None:
    """A CHECK lets NULL pass: only NOT NULL keeps it out."""
    payment_id = raw.payment(patient, 5)
    row_ids = {
        "payments": payment_id,
        "invoices": raw.invoice(payment_id),
        "tax_records": raw.tax_record(payment_id),
        "refunds": raw.refund(payment_id),
        "disputes": raw.dispute(payment_id),
        "credit_notes": raw.credit_note(payment_id),
    }

    with pytest.raises(IntegrityError) as refusal:
        raw.update(table, row_ids[table], **{column: None})

    diagnosis = getattr(refusal.value.orig, "diag", None)
    if diagnosis is None:
        assert str(refusal.value.orig) == f"NOT NULL constraint failed: {table}.{column}"
    else:
        assert (diagnosis.sqlstate, diagnosis.table_name, diagnosis.column_name) == ("23502", table, column)


# M9: money is whole numbers


def test_money_is_kept_in_columns_of_64_bits(engine: Engine) -> None:
    wanted = "BIGINT" if engine.dialect.name == "postgresql" else "INTEGER"
    inspector = inspect(engine)

    found = {
        (table, column["name"]): str(column["type"])
        for table in Base.metadata.tables
        for column in inspector.get_columns(table)
        if column["name"].endswith("_minor")
    }

    assert found == dict.fromkeys(MONEY, wanted)
    assert {table for table, _ in MONEY} >= {"payments", "invoices", "tax_records", "consultations"}


def test_no_column_of_any_table_could_hold_a_fraction(engine: Engine) -> None:
    inspector = inspect(engine)

    types = {str(column["type"]) for table in Base.metadata.tables for column in inspector.get_columns(table)}

    assert {kind.partition("(")[0] for kind in types} <= {
        "BIGINT", "INTEGER", "SMALLINT", "VARCHAR", "CHAR", "TEXT", "BOOLEAN", "DATETIME", "TIMESTAMP",
    }  # fmt: skip


def test_the_largest_amounts_fit_and_stay_exact(raw: Raw, rows: Rows, patient: int) -> None:
    largest = 2**63 - 1
    raw.payment(
        patient, 5, "completed", amount_minor=largest, received_minor=largest, refund_reserved_minor=1,
        refunded_minor=largest - 1,
    )  # fmt: skip

    kept = rows.one("SELECT amount_minor, received_minor, refunded_minor FROM payments")

    assert kept == {"amount_minor": largest, "received_minor": largest, "refunded_minor": largest - 1}


def test_money_that_came_through_the_api_is_kept_as_whole_numbers(people: People, rows: Rows, engine: Engine) -> None:
    fee = {"patient_id": people.patient.id, "fee": 1234.56}
    assert people.booking.put("/consultations/7", fee).status_code == 200
    for consultation_id, amount in ((5, 5000), (6, "5000.55"), (7, 1234.56), (8, 1e4)):
        created = people.patient.pay(consultation_id, amount=amount)
        assert created.status_code == 201
        payment_id = created.json["data"]["payment_id"]
        assert people.patient.post(f"/payments/{payment_id}/checkout").status_code == 200
        if consultation_id != 8:
            assert people.patient.confirm(payment_id, f"TXN-{payment_id}").status_code == 200
            returned = people.admin.post(f"/payments/{payment_id}/refund", {"amount": "0.07"})
            assert returned.json["data"]["refund_amount"] == 0.07

    type_of, whole = ("pg_typeof", "bigint") if engine.dialect.name == "postgresql" else ("typeof", "integer")
    for table, column in MONEY:
        if table == "disputes":  # made by webhooks alone
            continue
        types = rows.all(
            f"SELECT DISTINCT CAST({type_of}({column}) AS TEXT) AS t FROM {table} WHERE {column} IS NOT NULL"
        )
        assert types == [{"t": whole}]
    assert [row["amount_minor"] for row in rows.all("SELECT amount_minor FROM payments ORDER BY consultation_id")] == [
        500_000, 500_055, 123_456, 1_000_000,
    ]  # fmt: skip


# What the app makes of a refusal


@pytest.fixture
def violations(raw: Raw, people: People) -> dict[str, Callable[[], Any]]:
    """For each constraint that the app translates, a way to break it."""
    patient = people.patient.id
    payment_id = raw.payment(patient, 5, "completed", transaction_id="TXN-1", normalized_reference="txn1")
    raw.key(patient, payment_id, key="the-key")
    raw.update("consultations", 5, reference="BK-1")
    raw.refund(payment_id, payment_method="gcash", normalized_reference="gc1", transfer_reference="gc1")
    return {
        "pk_idempotency_keys": lambda: raw.key(patient, payment_id, key="the-key"),
        "uq_payments_active_consultation": lambda: raw.payment(patient, 5),
        "uq_payments_transaction": lambda: raw.payment(patient, 6, "completed", transaction_id="TXN-1"),
        "uq_payments_normalized_reference": lambda: raw.payment(
            patient, 6, "completed", transaction_id="TXN 1", normalized_reference="txn1"
        ),
        "uq_refunds_normalized_reference": lambda: raw.refund(
            payment_id, payment_method="gcash", normalized_reference="gc1", transfer_reference="GC 1"
        ),
        "pk_payments": lambda: raw.payment(patient, 6, id=payment_id),
        "uq_consultations_reference": lambda: raw.update("consultations", 6, reference="BK-1"),
        "uq_users_email": lambda: raw.user(email=people.other.email),
        "uq_users_normalized_email": lambda: raw.user(normalized_email=people.other.email),
        "fk_payments_consultation_patient": lambda: raw.update("consultations", 5, patient_id=people.other.id),
    }


def test_every_constraint_that_the_app_translates_exists_under_its_name(engine: Engine) -> None:
    assert {name for name, *_ in BROKEN_CONSTRAINTS} <= set(_names_in(engine))


def test_what_the_app_expects_sqlite_to_say_is_what_the_models_columns_make_it_say() -> None:
    assert {name: said for name, said, _ in BROKEN_CONSTRAINTS} == {
        name: sqlite_text(name) for name, *_ in BROKEN_CONSTRAINTS
    }


def test_each_real_violation_is_translated_into_its_own_meaning(violations: dict[str, Callable[[], Any]]) -> None:
    meanings = {name: meaning for name, _, meaning in BROKEN_CONSTRAINTS}
    assert set(violations) == set(meanings)

    for name, violate in violations.items():
        with pytest.raises(IntegrityError) as refusal:
            violate()
        assert_broken(refusal.value, name)
        assert type(constraint_meaning(refusal.value)) is meanings[name]


def test_a_violation_that_means_nothing_to_callers_stays_what_it_is(raw: Raw, people: People) -> None:
    patient = people.patient.id
    payment_id = raw.payment(patient, 5)
    raw.invoice(payment_id, invoice_number="INV-1")
    for unexpected in (
        lambda: raw.payment(patient, 6, amount_minor=0),
        lambda: raw.invoice(payment_id, invoice_number="INV-1"),
        lambda: raw.update("payments", payment_id, user_id=None),
    ):
        with pytest.raises(IntegrityError) as refusal:
            unexpected()
        assert constraint_meaning(refusal.value) is refusal.value


def _names_in(engine: Engine) -> Iterator[str | None]:
    inspector = inspect(engine)
    for table in inspector.get_table_names():
        yield inspector.get_pk_constraint(table)["name"]
        unique = (index for index in inspector.get_indexes(table) if index["unique"])
        for constraint in (*inspector.get_foreign_keys(table), *inspector.get_unique_constraints(table), *unique):
            yield constraint["name"]

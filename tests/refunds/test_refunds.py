"""Returning money over HTTP: how much, by whom, once, and what becomes of payment, invoice and consultation.

The sandbox and people's own hands carry these refunds; what a gateway may do to them is the next files' matter.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import refund

REFUND_TABLES = ("refunds", "payment_events", "idempotency_keys")


pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def payment_id(people: People) -> int:
    """A payment of 5000 for consultation 5, completed: version 1."""
    paid: int = people.patient.pay(5).json["data"]["payment_id"]
    assert people.patient.confirm(paid).status_code == 200
    return paid


def money_of(rows: Rows, payment_id: int) -> dict[str, Any]:
    return rows.one(
        "SELECT status, version, received_minor, refund_reserved_minor AS reserved, refunded_minor AS refunded"
        " FROM payments WHERE id = :id",
        id=payment_id,
    )


def untouched(rows: Rows, payment_id: int, *, status: str = "completed", version: int = 1) -> bool:
    """Whether nobody has written anything: no refund, no event, no key but those of the payment itself."""
    money = money_of(rows, payment_id)
    return (
        rows.count("refunds") == 0
        and rows.count("payment_events", "event LIKE 'refund%'") == 0
        and rows.count("idempotency_keys", "operation = 'refund'") == 0
        and (money["status"], money["version"], money["reserved"], money["refunded"]) == (status, version, 0, 0)
    )


# How much


def test_a_refund_without_an_amount_returns_everything(people: People, payment_id: int, rows: Rows) -> None:
    answer = refund(people.admin, payment_id)

    assert answer.status_code == 200
    data = answer.json["data"]
    assert data["refund_amount"] == data["refund"]["amount"] == 5000
    assert data["payment"]["status"] == "refunded"
    assert data["payment"]["refunded_amount"] == 5000
    shown = people.patient.get(f"/payments/{payment_id}").json["data"]
    assert {name: shown[name] for name in data["payment"]} == data["payment"]
    assert [invoice["status"] for invoice in shown["invoices"]] == ["refunded"]
    assert money_of(rows, payment_id) == {
        "status": "refunded",
        "version": 3,
        "received_minor": 500_000,
        "reserved": 0,
        "refunded": 500_000,
    }


def test_parts_add_up_until_all_is_back(people: People, payment_id: int, rows: Rows) -> None:
    steps: list[tuple[dict[str, Any], float, float, str, str]] = [
        ({"amount": 2000}, 2000, 2000, "partially_refunded", "paid"),
        ({"amount": "1000.50"}, 1000.5, 3000.5, "partially_refunded", "paid"),
        ({"amount": 0.01}, 0.01, 3000.51, "partially_refunded", "paid"),
        ({"amount": None}, 1999.49, 5000, "refunded", "refunded"),
    ]
    for number, (asked, returned, total, status, invoice) in enumerate(steps, start=1):
        answer = refund(people.admin, payment_id, **asked)

        assert answer.status_code == 200
        data = answer.json["data"]
        assert data["refund_amount"] == returned
        assert data["payment"]["refunded_amount"] == total
        assert data["payment"]["status"] == status
        assert data["payment"]["version"] == 1 + 2 * number
        assert rows.one("SELECT status FROM invoices") == {"status": invoice}

    assert rows.one("SELECT sum(amount_minor) AS total, count(*) AS n FROM refunds WHERE status = 'succeeded'") == {
        "total": 500_000,
        "n": 4,
    }


def test_an_empty_body_is_a_refund_of_everything(people: People, payment_id: int) -> None:
    answer = people.admin.send("POST", f"/payments/{payment_id}/refund")

    assert answer.status_code == 200
    assert answer.json["data"]["refund_amount"] == 5000


def test_more_than_is_left_is_refused(people: People, payment_id: int, rows: Rows) -> None:
    assert refund(people.admin, payment_id, amount=3000).status_code == 200
    before = rows.counts(*REFUND_TABLES)

    answer = refund(people.admin, payment_id, key="too-much", amount=2000.01)

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/refund-exceeds-balance")
    assert list(answer.json["errors"]) == ["amount"]
    assert "2,000.00" in answer.json["errors"]["amount"][0]
    assert rows.counts(*REFUND_TABLES) == before
    # Its key was not used up: with an amount that fits it goes through.
    assert refund(people.admin, payment_id, key="too-much", amount=2000).status_code == 200


@pytest.mark.parametrize(
    "amount",
    [0, -1, "0", "-1", "0.00", 1.234, "1.234", 0.001, True, False, "1e3", "5_000", " 5", "", "abc", [], {}, "9" * 5000],
    ids=lambda amount: repr(amount)[:12],
)
def test_an_amount_that_is_none_is_refused(people: People, payment_id: int, rows: Rows, amount: object) -> None:
    answer = refund(people.admin, payment_id, amount=amount)

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["amount"]
    assert untouched(rows, payment_id)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "a\x00b"}, "reason"),
        ({"reason": 5}, "reason"),
        ({"expected_version": -1}, "expected_version"),
        ({"expected_version": True}, "expected_version"),
        ({"currency": "PHP"}, "currency"),
    ],
)
def test_other_bad_members_are_named(
    people: People, payment_id: int, rows: Rows, members: dict[str, Any], field: str
) -> None:
    answer = refund(people.admin, payment_id, **members)

    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [field]
    assert untouched(rows, payment_id)


# By whom, and of what


@pytest.mark.parametrize("who", ["patient", "other", "booking"])
def test_only_an_admin_refunds(people: People, payment_id: int, rows: Rows, who: str) -> None:
    assert refund(getattr(people, who), payment_id).status_code == 403
    assert untouched(rows, payment_id)


def test_nobody_refunds_without_a_token(people: People, payment_id: int, rows: Rows) -> None:
    assert people.anonymous().post(f"/api/v1/payments/{payment_id}/refund", json={}).status_code == 401
    assert untouched(rows, payment_id)


@pytest.mark.parametrize(
    ("change", "status"),
    [("role = 'patient'", 403), ("disabled_at = created_at", 401), ("token_version = token_version + 1", 401)],
)
def test_who_is_no_admin_any_more_refunds_nothing(
    people: People, payment_id: int, rows: Rows, change: str, status: int
) -> None:
    rows.execute(f"UPDATE users SET {change} WHERE id = :id", id=people.admin.id)

    assert refund(people.admin, payment_id).status_code == status
    assert untouched(rows, payment_id)


def test_an_unknown_payment_is_404(people: People, rows: Rows) -> None:
    assert refund(people.admin, 999_999, amount=10).status_code == 404
    assert rows.count("refunds") == 0


@pytest.mark.parametrize("status", ["pending", "cancelled"])
def test_a_payment_that_brought_no_money_has_none_to_return(people: People, rows: Rows, status: str) -> None:
    unpaid = people.patient.pay(6).json["data"]["payment_id"]
    if status == "cancelled":
        people.patient.post(f"/payments/{unpaid}/cancel")

    answer = refund(people.admin, unpaid, amount=10)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/invalid-transition")
    assert answer.json["data"] == {"status": status}
    assert answer.json["retryable"] is False
    assert untouched(rows, unpaid, status=status, version=0 if status == "pending" else 1)


@pytest.mark.parametrize("asked", [{}, {"amount": 1}])
def test_what_is_refunded_is_not_refunded_again(
    people: People, payment_id: int, rows: Rows, asked: dict[str, Any]
) -> None:
    refund(people.admin, payment_id)
    before = rows.counts(*REFUND_TABLES)

    answer = refund(people.admin, payment_id, **asked)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/invalid-transition")
    assert answer.json["data"] == {"status": "refunded"}
    assert rows.counts(*REFUND_TABLES) == before


def test_a_full_refund_frees_the_consultation_and_a_part_does_not(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, amount=4999.99)
    taken = people.patient.pay(5)
    assert taken.status_code == 409
    assert taken.json["data"]["existing_payment_id"] == payment_id

    refund(people.admin, payment_id)

    assert people.patient.get("/consultations/5").json["data"]["active_payment"] is None
    again = people.patient.pay(5)
    assert again.status_code == 201
    assert people.patient.confirm(again.json["data"]["payment_id"], "TXN-2").status_code == 200
    assert rows.one("SELECT sum(received_minor - refunded_minor) AS held FROM payments") == {"held": 500_000}


# What is said of it


def test_the_shape_of_a_refund(people: People, payment_id: int) -> None:
    answer = refund(people.admin, payment_id, key="k", amount=1000.25, reason="The doctor was ill")

    assert answer.headers["ETag"] == '"3"'
    assert answer.headers["Idempotency-Key"] == "k"
    assert "Idempotent-Replayed" not in answer.headers
    assert "Retry-After" not in answer.headers
    assert isinstance(answer.json["message"], str)
    data = answer.json["data"]
    assert set(data) == {"payment", "refund", "refund_amount"}
    refunded = data["refund"]
    assert refunded == {
        "id": refunded["id"],
        "payment_id": payment_id,
        "amount": 1000.25,
        "currency": "PHP",
        "status": "succeeded",
        "by_hand": False,
        "reason": "The doctor was ill",
        "created_at": refunded["created_at"],
        "settled_at": refunded["settled_at"],
        "credit_note_id": refunded["credit_note_id"],
    }
    assert refunded["created_at"] <= refunded["settled_at"]
    assert datetime.fromisoformat(refunded["settled_at"]).tzinfo is not None


def test_a_payment_shows_its_refunds_oldest_first(people: People, payment_id: int) -> None:
    assert people.patient.get(f"/payments/{payment_id}").json["data"]["refunds"] == []
    made = [refund(people.admin, payment_id, amount=amount).json["data"]["refund"] for amount in (3000, 200.5)]

    for person in (people.patient, people.admin):
        assert person.get(f"/payments/{payment_id}").json["data"]["refunds"] == made


def test_the_trail_tells_of_request_and_success(people: People, payment_id: int) -> None:
    refund(people.admin, payment_id, amount=1000)
    refund(people.admin, payment_id)

    trail = people.patient.get(f"/payments/{payment_id}/events").json["data"]

    assert [(e["event"], e["from_status"], e["to_status"], e["version"]) for e in trail[2:]] == [
        ("refund.requested", "completed", "completed", 2),
        ("refund.succeeded", "completed", "partially_refunded", 3),
        ("refund.requested", "partially_refunded", "partially_refunded", 4),
        ("refund.succeeded", "partially_refunded", "refunded", 5),
    ]
    assert {e["actor"] for e in trail[2:]} == {f"admin:{people.admin.id}"}
    assert trail[2]["request_id"] == trail[3]["request_id"] != trail[4]["request_id"]


# Versions


@pytest.mark.parametrize("if_match", ['"0"', '"3"', 'W/"1"', "junk"])
def test_an_if_match_that_does_not_match_is_412(people: People, payment_id: int, rows: Rows, if_match: str) -> None:
    answer = people.admin.post(f"/payments/{payment_id}/refund", headers={"If-Match": if_match})

    assert answer.status_code == 412
    assert untouched(rows, payment_id)


def test_an_etag_is_good_for_one_refund(people: People, payment_id: int, rows: Rows) -> None:
    seen = people.admin.get(f"/payments/{payment_id}").headers["ETag"]
    path, body = f"/payments/{payment_id}/refund", {"amount": 1000}

    first = people.admin.post(path, body, headers={"If-Match": seen})
    assert first.status_code == 200
    assert people.admin.post(path, body, headers={"If-Match": seen}).status_code == 412
    more = {"amount": 1001}  # the same amount would be one that is pressed twice
    assert people.admin.post(path, more, headers={"If-Match": first.headers["ETag"]}).status_code == 200
    assert rows.count("refunds") == 2


def test_an_old_expected_version_is_a_conflict(people: People, payment_id: int, rows: Rows) -> None:
    answer = refund(people.admin, payment_id, expected_version=0)

    assert answer.status_code == 409
    assert answer.json["type"].endswith("/version-conflict")
    assert answer.json["data"] == {"current_version": 1}
    assert answer.json["retryable"] is False
    assert untouched(rows, payment_id)
    assert refund(people.admin, payment_id, expected_version=1).status_code == 200


def test_the_version_is_judged_before_the_balance(people: People, payment_id: int) -> None:
    assert refund(people.admin, payment_id, amount=9000, expected_version=0).status_code == 409
    assert refund(people.admin, payment_id, amount=9000, expected_version=1).status_code == 422


# Keys


@pytest.mark.parametrize("amount", [1000, "1000", "1000.00", 1e3])
def test_the_same_key_again_gives_the_same_answer_and_nothing_more(
    people: People, payment_id: int, rows: Rows, amount: object
) -> None:
    first = refund(people.admin, payment_id, key="k", amount=1000)
    before, money = rows.counts(*REFUND_TABLES), money_of(rows, payment_id)

    # What was expected of the version then is no part of the request.
    again = refund(people.admin, payment_id, key="k", amount=amount, expected_version=1)

    assert again.status_code == first.status_code == 200
    assert again.json == first.json
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (rows.counts(*REFUND_TABLES), money_of(rows, payment_id)) == (before, money)


def test_a_replay_comes_before_every_judgement_of_the_payment(people: People, payment_id: int, rows: Rows) -> None:
    """All is back by now, so the same refund would be refused if it were a new one."""
    refund(people.admin, payment_id, key="k")

    again = refund(people.admin, payment_id, key="k")

    assert again.status_code == 200
    assert again.json["data"]["refund_amount"] == 5000
    assert rows.count("refunds") == 1


@pytest.mark.parametrize(
    ("members", "differ"),
    [
        ({"amount": 1001, "reason": "a"}, {"amount"}),
        ({"amount": 1000, "reason": "b"}, {"reason"}),
        ({"reason": "a"}, {"amount"}),
        ({}, {"amount", "reason"}),
    ],
)
def test_a_key_is_not_for_another_refund(
    people: People, payment_id: int, rows: Rows, members: dict[str, Any], differ: set[str]
) -> None:
    refund(people.admin, payment_id, key="k", amount=1000, reason="a")
    before = rows.counts(*REFUND_TABLES)

    answer = refund(people.admin, payment_id, key="k", **members)

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/idempotency-key-reused")
    assert set(answer.json["errors"]) == differ
    assert rows.counts(*REFUND_TABLES) == before


def test_a_key_is_not_for_another_payment_or_operation(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, key="k", amount=1000)
    second = people.patient.pay(6).json["data"]["payment_id"]
    people.admin.confirm(second, "TXN-6", key="confirmed")

    elsewhere = refund(people.admin, second, key="k", amount=1000)
    assert (elsewhere.status_code, list(elsewhere.json["errors"])) == (422, ["payment_id"])
    other_operation = refund(people.admin, second, key="confirmed")
    assert (other_operation.status_code, list(other_operation.json["errors"])) == (422, ["operation"])
    assert rows.count("refunds") == 1


def test_two_keys_are_two_refunds(people: People, payment_id: int, rows: Rows) -> None:
    for key in ("a", "b"):
        assert refund(people.admin, payment_id, key=key, amount=1000).status_code == 200

    assert money_of(rows, payment_id)["refunded"] == 200_000


def test_a_refunds_key_can_be_asked(people: People, payment_id: int) -> None:
    made = refund(people.admin, payment_id, key="k", amount=1000)

    data = people.admin.get("/idempotency-keys/k").json["data"]

    assert data == {
        "key": "k",
        "operation": "refund",
        "payment_id": payment_id,
        "refund_id": made.json["data"]["refund"]["id"],
        # The refund's, not the payment's, which is partially_refunded.
        "status": "succeeded",
        "first_response": {"status": 200, "body": made.json},
        "created_at": made.json["data"]["refund"]["created_at"],
    }
    assert people.patient.get("/idempotency-keys/k").status_code == 404


def test_a_pruned_refund_key_answers_with_what_has_become_of_it(people: People, payment_id: int, rows: Rows) -> None:
    made = refund(people.admin, payment_id, key="k", amount=1000).json["data"]
    prune(people, rows, "k")
    refund(people.admin, payment_id)

    answer = refund(people.admin, payment_id, key="k", amount=1000)

    assert answer.status_code == 200
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert answer.headers["ETag"] == '"5"'
    data = answer.json["data"]
    assert data["type"] == "existing"
    assert data["payment_id"] == data["existing_payment_id"] == payment_id
    assert data["payment"]["status"] == "refunded"
    assert (data["refund"], data["refund_amount"]) == (made["refund"], 1000)
    assert rows.count("refunds") == 2


def test_a_pruned_refund_key_is_still_not_for_another_refund(people: People, payment_id: int, rows: Rows) -> None:
    refund(people.admin, payment_id, key="k", amount=1000)
    prune(people, rows, "k")

    answer = refund(people.admin, payment_id, key="k", amount=1001)

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/idempotency-key-reused")
    assert rows.count("refunds") == 1
    assert people.admin.get("/idempotency-keys/k").json["data"]["first_response"] is None


def prune(people: People, rows: Rows, key: str) -> None:
    """Let a day go by for this key, and prune as the timer does."""
    moment = datetime.now(UTC) - timedelta(hours=25)
    stored = rows.moment(moment)
    rows.execute("UPDATE idempotency_keys SET created_at = :at WHERE key = :key", at=stored, key=key)
    pruned = people.app.test_cli_runner().invoke(args=["idempotency", "prune"])
    assert pruned.exit_code == 0
    assert rows.one("SELECT request, response_body FROM idempotency_keys WHERE key = :key", key=key) == {
        "request": None,
        "response_body": None,
    }

"""What was asked and answered may be forgotten after a day; that the key was used may not, ever."""

import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import Rows


@pytest.fixture
def pruned_payment(people: People, rows: Rows, database: Database) -> int:
    """A payment whose key ``k`` was pruned, while the younger key ``young`` was not."""
    payment_id: int = people.patient.pay(5, key="k").json["data"]["payment_id"]
    people.patient.pay(6, key="young")
    make_old(rows, "k")
    run(database, "idempotency", "prune")
    return payment_id


def run(database: Database, *command: str) -> str:
    """What the command prints; it succeeds."""
    with commands_on(database.url) as commands:
        return commands.ok(*command)


def make_old(rows: Rows, key: str) -> None:
    moment = datetime.now(UTC) - timedelta(hours=25)
    rows.execute("UPDATE idempotency_keys SET created_at = :at WHERE key = :key", at=rows.moment(moment), key=key)


def test_prune_drops_request_and_answer_of_old_keys_only(pruned_payment: int, rows: Rows) -> None:
    kept = rows.all(
        "SELECT key, payment_id, request IS NULL AS a, response_body IS NULL AS b FROM idempotency_keys ORDER BY key"
    )

    assert [(row["key"], bool(row["a"]), bool(row["b"])) for row in kept] == [
        ("k", True, True),
        ("young", False, False),
    ]
    assert kept[0]["payment_id"] == pruned_payment


def test_a_pruned_key_answers_with_what_the_payment_has_become(people: People, pruned_payment: int, rows: Rows) -> None:
    people.patient.confirm(pruned_payment)

    answer = people.patient.pay(5, key="k")

    assert answer.status_code == 200
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert answer.headers["ETag"] == '"1"'
    data = answer.json["data"]
    assert data["type"] == "existing"
    assert data["payment_id"] == data["existing_payment_id"] == data["payment"]["id"] == pruned_payment
    assert data["status"] == data["payment"]["status"] == "completed"
    assert data["invoice"]["status"] == "paid"
    assert rows.count("payments") == 2


def test_a_pruned_key_is_still_not_for_another_request(people: People, pruned_payment: int) -> None:  # noqa: ARG001
    answer = people.patient.pay(7, key="k")

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/idempotency-key-reused")
    assert list(answer.json["errors"]) == ["idempotency_key"]


def test_a_pruned_confirm_answers_likewise(people: People, rows: Rows, database: Database) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.confirm(payment_id, "TXN-1", key="c")
    make_old(rows, "c")
    run(database, "idempotency", "prune")

    answer = people.patient.confirm(payment_id, "TXN-1", key="c")

    assert answer.status_code == 200
    assert answer.json["data"]["type"] == "existing"
    assert answer.json["data"]["status"] == "completed"


def test_pruning_goes_by_batches_until_nothing_is_left(
    people: People, rows: Rows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for consultation in range(1, 8):
        people.patient.pay(consultation, key=f"k{consultation}")
        make_old(rows, f"k{consultation}")
    # By its path, the module is hidden behind the blueprint of the same name.
    monkeypatch.setattr(sys.modules["payments_app.idempotency.cli"], "BATCH_SIZE", 2)

    result = people.app.test_cli_runner().invoke(args=["idempotency", "prune"])

    assert result.exit_code == 0
    assert result.stdout == "7 keys pruned\n"
    assert rows.count("idempotency_keys", "response_body IS NULL") == 7
    assert run(database, "idempotency", "prune") == "0 keys pruned\n"
    run(database, "payments", "audit")


def test_a_key_can_be_asked_what_it_made(people: People) -> None:
    first = people.patient.pay(5, key="a/b//c?d#e%f")
    payment_id = first.json["data"]["payment_id"]
    people.patient.confirm(payment_id)

    answer = people.patient.get("/idempotency-keys/a%2Fb%2F%2Fc%3Fd%23e%25f")

    assert answer.status_code == 200
    data = answer.json["data"]
    assert data == {
        "key": "a/b//c?d#e%f",
        "operation": "create",
        "payment_id": payment_id,
        "refund_id": None,
        "status": "completed",
        "first_response": {"status": 201, "body": first.json},
        "created_at": first.json["data"]["payment"]["created_at"],
    }


def test_a_pruned_key_can_still_be_asked(people: People, pruned_payment: int) -> None:
    data = people.patient.get("/idempotency-keys/k").json["data"]

    assert data["payment_id"] == pruned_payment
    assert data["first_response"] is None


def test_an_unknown_key_is_404_and_says_what_to_do(people: People) -> None:
    people.patient.pay(5, key="k")

    for person, key in ((people.patient, "nothing-so-far"), (people.other, "k")):
        answer = person.get(f"/idempotency-keys/{key}")
        assert answer.status_code == 404
        assert "same key" in answer.json["detail"]


@pytest.mark.parametrize("key", ["%00", "k%00", "a%20b", "%22k%22", "%5C", "k%09", "caf%C3%A9", "%FF", "k" * 256])
def test_nothing_was_done_under_a_key_that_is_none(people: People, key: str) -> None:
    answer = people.patient.get(f"/idempotency-keys/{key}")

    assert answer.status_code == 404
    assert answer.json["type"].endswith("/idempotency-key-not-found")

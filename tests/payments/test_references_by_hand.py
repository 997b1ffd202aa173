"""One transfer by hand pays one payment, in whatever spelling staff type its reference."""

import threading
import unicodedata

import pytest

from payments_app.gateways.references import normalized_reference
from tests.support.client import ApiResponse
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import refund

pytestmark = pytest.mark.usefixtures("audited")

SPELLINGS = {
    "as it stands on the slip": "GCash 0917-555-ABC",
    "small": "gcash 0917-555-abc",
    "without blanks and hyphens": "GCASH0917555ABC",
    "no-break spaces": "GCash\u00a00917\u202f555\u2007ABC",
    "ideographic space": "GCash\u30000917-555-ABC",
    "zero width": "GCash\u200b 0917\u200d555\u2060ABC\ufeff",
    "full-width": unicodedata.normalize("NFKC", "GCash 0917-555-ABC").translate(
        {n: n + 0xFEE0 for n in range(33, 127)}
    ),
    "other hyphens": "GCash 0917\u2010555\u2011ABC",
    "dashes": "GCash\u20130917\u2014555\u2212ABC",
    "soft hyphens": "GC\u00adash0917\u00ad555\u00adABC",
    "marks of direction": "\u202aGCash 0917\u202c-555-\u2066ABC\u2069",
    "variation selectors": "GCash 0917\ufe0f-555-ABC\ufe0e",
    "mathematical letters": "\U0001d406Cash 0917-555-\U0001d400BC",
    "blanks of other scripts": "GCash\u31640917\u2800555\u1160ABC",
    "next line, which is a control character": "GCash\u00850917-555-ABC",
}
OTHERS = [
    "GCash 0917-555-ABD",
    "GCash 0917_555_ABC",
    "0917-555-ABC",
    "GCash 0917-555-\u0410BC",
]  # the last A is Cyrillic


def by_hand(people: People, consultation: int, method: str = "gcash") -> int:
    made: int = people.patient.pay(consultation, payment_method=method).json["data"]["payment_id"]
    return made


def arrived(people: People, payment_id: int, reference: str) -> ApiResponse:
    return people.admin.confirm(payment_id, reference)


def test_every_spelling_of_a_reference_is_the_same_transfer(people: People, rows: Rows) -> None:
    first = by_hand(people, 1)
    assert arrived(people, first, SPELLINGS["as it stands on the slip"]).status_code == 200

    second = by_hand(people, 2)
    for spelling in SPELLINGS.values():
        answer = arrived(people, second, spelling)
        assert answer.status_code == 409, ascii(spelling)
        assert answer.json["type"].endswith("/transaction-already-used")

    assert rows.all("SELECT id FROM payments WHERE status = 'completed'") == [{"id": first}]
    assert rows.one(f"SELECT version, normalized_reference FROM payments WHERE id = {second}") == {
        "version": 0,
        "normalized_reference": None,
    }


def test_the_same_payment_in_another_spelling_is_a_retry(people: People, rows: Rows) -> None:
    payment_id = by_hand(people, 1)
    first = arrived(people, payment_id, SPELLINGS["as it stands on the slip"])

    for spelling in SPELLINGS.values():
        again = arrived(people, payment_id, spelling)
        assert again.status_code == 200, ascii(spelling)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json["data"] == first.json["data"]

    assert rows.count("payment_events", "event = 'payment.completed'") == 1
    assert first.json["data"]["payment"]["transaction_id"] == SPELLINGS["as it stands on the slip"]


def test_other_references_are_other_transfers(people: People, rows: Rows) -> None:
    for number, reference in enumerate([SPELLINGS["small"], *OTHERS], start=1):
        assert arrived(people, by_hand(people, number), reference).status_code == 200, ascii(reference)
    assert rows.count("payments", "status = 'completed'") == len(OTHERS) + 1


def test_methods_have_references_of_their_own(people: People) -> None:
    for number, method in enumerate(("gcash", "bank_transfer", "e_wallet"), start=1):
        assert arrived(people, by_hand(people, number, method), "REF 1").status_code == 200


def test_of_spellings_that_arrive_at_once_one_pays(people: People, rows: Rows) -> None:
    """Each for another payment, from another member of staff."""
    payments = [by_hand(people, number) for number in range(1, 9)]
    gate, statuses = threading.Barrier(len(payments)), []

    def confirm(payment_id: int, spelling: str) -> None:
        gate.wait()
        statuses.append(arrived(people, payment_id, spelling).status_code)

    racers = [threading.Thread(target=confirm, args=pair) for pair in zip(payments, SPELLINGS.values(), strict=False)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 409, 503}  # SQLite may be busy for all of three attempts
    assert rows.count("payments", "status = 'completed'") == 1


def test_late_money_has_its_reference_too(people: People, rows: Rows) -> None:
    """A payment that expired, whose consultation has another one by now: the money is kept for staff to return."""
    late = by_hand(people, 1)
    rows.execute("UPDATE payments SET status = 'expired'")
    rows.execute("UPDATE invoices SET status = 'void'")
    rows.execute("UPDATE payment_events SET to_status = 'expired'")
    by_hand(people, 1)
    assert arrived(people, late, "REF-1").status_code == 409

    answer = arrived(people, by_hand(people, 2), "ref 1")

    assert answer.json["type"].endswith("/transaction-already-used")
    assert rows.one(f"SELECT needs_review, normalized_reference FROM payments WHERE id = {late}") == {
        "needs_review": True,
        "normalized_reference": "ref1",
    }


@pytest.mark.parametrize("empty", ["-", "\u2014\u2014", "\u200b", "\u3164", "- \u2060 -"])
def test_a_reference_with_nothing_to_compare_is_refused(people: People, rows: Rows, empty: str) -> None:
    payment_id = by_hand(people, 1)

    answer = arrived(people, payment_id, empty)

    assert answer.status_code == 422
    assert answer.json["errors"] == {"transaction_id": ["Must contain a letter or a digit."]}
    assert rows.count("payments", "status = 'pending'") == 1


def test_a_reference_that_is_longer_when_written_out_is_refused(people: People, rows: Rows) -> None:
    """One character that stands for fifteen letters."""
    payment_id = by_hand(people, 1)

    assert arrived(people, payment_id, "\ufdfa" * 18).status_code == 422
    assert arrived(people, payment_id, "\ufdfa" * 17).status_code == 200
    assert rows.count("payments", "status = 'completed'") == 1


def test_ids_that_a_machine_makes_are_compared_as_they_are(people: People) -> None:
    for number, transaction_id in enumerate(("TXN-a", "TXN-A", "TXN a"), start=1):
        made = people.patient.pay(number).json["data"]["payment_id"]
        assert people.patient.confirm(made, transaction_id).status_code == 200
    assert normalized_reference("stripe", "pi_Aa") is None


# What no constraint compares


@pytest.fixture
def left_behind(people: People, rows: Rows) -> int:
    """A payment that a process of the release before has confirmed, beside this one."""
    payment_id = by_hand(people, 1)
    assert arrived(people, payment_id, SPELLINGS["as it stands on the slip"]).status_code == 200
    rows.execute("UPDATE payments SET normalized_reference = NULL")
    return payment_id


def test_a_reference_that_another_release_wrote_is_compared_too(people: People, rows: Rows, left_behind: int) -> None:
    second = by_hand(people, 2)

    for spelling in SPELLINGS.values():
        answer = arrived(people, second, spelling)
        assert answer.status_code == 409, ascii(spelling)
        assert answer.json["type"].endswith("/transaction-already-used")

    assert arrived(people, second, "another one").status_code == 200
    assert arrived(people, by_hand(people, 3, "bank_transfer"), SPELLINGS["small"]).status_code == 200
    again = arrived(people, left_behind, SPELLINGS["small"])
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert rows.count("payments", "status = 'completed'") == 3


def test_the_audit_names_what_two_releases_confirmed_with_one_transfer(
    people: People, database: Database, rows: Rows, left_behind: int
) -> None:
    other = by_hand(people, 2)
    assert arrived(people, other, "something else").status_code == 200
    compared = {"reference": "gcash0917555abc", "id": other}
    rows.execute("UPDATE payments SET transaction_id = 'GCash0917-555ABC' WHERE id = :id", id=other)
    rows.execute("UPDATE payments SET normalized_reference = :reference WHERE id = :id", **compared)

    with commands_on(database.url) as commands:
        (review,) = commands.json("payments", "audit")
        assert (review["invariant"], review["payment_id"]) == ("review", left_behind)
        assert f"so was payment {other}" in review["detail"]

        # Neither has the other's column: named all the same, both of them.
        rows.execute("UPDATE payments SET normalized_reference = NULL")
        assert [review["payment_id"] for review in commands.json("payments", "audit")] == sorted([left_behind, other])

        refund_id = refund(people.admin, other).json["data"]["refund"]["id"]
        assert people.admin.post(f"/refunds/{refund_id}/settle", {"reference": "sent back"}).status_code == 200
        assert commands.json("payments", "audit") == []

"""How many statements a request costs the database: each is a round trip, and one that creeps in is one for all."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Engine

from tests.gateway_webhooks import tell
from tests.support.apps import engine_of
from tests.support.client import ApiResponse
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.statements import statements_sent
from tests.support.stripe_apps import StripeApp, open_by_card


@pytest.fixture
def count(engine: Engine) -> Callable[[Callable[[], ApiResponse]], int]:
    """How many statements a request sends that succeeds, without BEGIN and COMMIT."""

    def count(ask: Callable[[], ApiResponse]) -> int:
        with statements_sent(engine) as sent:
            answer = ask()
        assert answer.status_code in (200, 201)
        return len([statement for statement, _ in sent if not statement.startswith("BEGIN")])

    return count


@pytest.fixture
def paid(people: People) -> int:
    """A payment with all that a payment comes to have; the worker that was asked has ids in hand and is ready."""
    payment_id: int = people.patient.pay(1, key="paid").json["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    for _ in range(2):
        assert (
            people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000, "allow_repeat": True}).status_code
            == 200
        )
    for consultation_id in range(2, 6):  # so that a list has more than one
        people.patient.pay(consultation_id)
    return payment_id


READS = (
    "/payments/{}",
    "/payments/{}/events",
    "/payments",
    "/payments?status=pending&per_page=2",
    "/payments?consultation_id=1",
    "/consultations",
    "/consultations/1",
    "/idempotency-keys/paid",
    "/me",
)


@pytest.mark.parametrize("path", READS)
def test_whatever_a_patient_reads_is_one_statement(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int], path: str
) -> None:
    assert count(lambda: people.patient.get(path.format(paid))) == 1


def test_a_payment_is_one_statement_to_staff_too(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    assert count(lambda: people.admin.get(f"/payments/{paid}")) == 1


@pytest.mark.parametrize("path", READS[1:3])
def test_staff_read_with_one_more_that_asks_whether_they_are_still_staff(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int], path: str
) -> None:
    assert count(lambda: people.admin.get(path.format(paid))) == 2


def test_a_next_page_is_one_statement(
    people: People, paid: int, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    cursor = people.patient.get("/payments?per_page=2").json["meta"]["next_cursor"]
    assert count(lambda: people.patient.get(f"/payments?per_page=2&cursor={cursor}")) == 1
    assert paid


def test_the_methods_are_no_statement(people: People, count: Callable[[Callable[[], ApiResponse]], int]) -> None:
    assert count(lambda: people.patient.get("/payment-methods")) == 0


def test_a_payment_is_one_statement_on_postgresql_and_so_is_its_replay(
    people: People, paid: int, rows: Rows, count: Callable[[Callable[[], ApiResponse]], int]
) -> None:
    """SQLite, which has no network to cross, does the same in turn. Now and then one more asks for a block of ids."""
    creates = [count(partial(people.patient.pay, number, key=f"counted-{number}")) for number in (7, 8)]
    replays = [count(lambda: people.patient.pay(7, key="counted-7")) for _ in range(2)]
    assert (min(creates), min(replays)) == ((5, 3) if rows.is_sqlite else (1, 1))
    assert paid


# How many statements each change is on PostgreSQL. Each is a round trip, as are BEGIN and COMMIT of each transaction.
CHANGES = {
    # Read with its user and key; the newer session; payment, invoice, event, key.
    "confirm": 6,
    # The same, and the references that no constraint compares.
    "confirm by hand": 7,
    # Read as above; the open session; lock; sessions, payment, invoice, event, key.
    "cancel": 8,
    # Read as above; payment, refund, event, key. Lock; payment, number and row of the credit note, refund, event, key.
    "refund of a part": 12,
    # Lock; read as above; sessions, and what the new one says; session. Lock; session, key.
    "checkout": 7,
    # The same lock and reads, and the session's, which is looked up.
    "checkout again": 6,
    "replay of a confirm": 1,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_so_many_statements(
    people: People, rows: Rows, count: Callable[[Callable[[], ApiResponse]], int], change: str
) -> None:
    def new(method: str = "stripe") -> int:
        number = rows.count("payments") + 1
        return int(people.patient.pay(number, payment_method=method).json["data"]["payment_id"])

    def asked() -> Callable[[], ApiResponse]:
        """The request, of a payment that is made before."""
        match change:
            case "confirm" | "replay of a confirm":
                payment_id = new()
                return partial(people.patient.confirm, payment_id, f"TXN-{payment_id}", key=f"confirm-{payment_id}")
            case "confirm by hand":
                payment_id = new("bank_transfer")
                return partial(people.admin.confirm, payment_id, f"TXN-{payment_id}")
            case "cancel":
                return partial(people.patient.post, f"/payments/{new()}/cancel")
            case "refund of a part":
                payment_id = new()
                people.patient.confirm(payment_id, f"TXN-{payment_id}")
                return partial(people.admin.post, f"/payments/{payment_id}/refund", {"amount": 10})
            case _:
                return partial(people.patient.post, f"/payments/{new('bank_transfer')}/checkout")

    asked()()  # takes ids
    ask = asked()
    if change in ("replay of a confirm", "checkout again"):
        assert ask().status_code == 200
    assert rows.is_sqlite or count(ask) == CHANGES[change]


def test_a_webhook_that_completes_a_payment_is_so_many_statements(stripe_app: StripeApp) -> None:
    """The payment that it is about; lock; event; session; payment, invoice, event of the trail."""
    engine = engine_of(stripe_app.app)
    counts = []
    for consultation_id in (1, 2):
        _, intent = open_by_card(stripe_app.people, consultation_id)
        stripe_app.fake.pay(intent)
        with statements_sent(engine) as sent:
            tell(stripe_app, stripe_app.fake.intent_event("succeeded", intent))
        counts.append(len([statement for statement, _ in sent if not statement.startswith("BEGIN")]))
    assert engine.dialect.name == "sqlite" or counts == [7, 7]

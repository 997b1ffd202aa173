"""A consultation that is closed: nobody pays it any more, whoever is at it in that moment."""

import threading

import pytest

from payments_app.payments import close as closing
from tests.api.assertions import nothing_written
from tests.gateway_webhooks import state_of, tell, trail_of
from tests.support.client import ApiResponse
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp, open_by_card

INTENTS = "/v1/payment_intents"

pytestmark = pytest.mark.usefixtures("audited")


def code(answer: ApiResponse) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].rpartition("/")[2]


@pytest.mark.parametrize("who", ["booking", "admin"])
def test_a_closed_consultation_takes_no_payment_and_does_not_change(people: People, rows: Rows, who: str) -> None:
    closed = getattr(people, who).post("/consultations/5/close")

    assert closed.status_code == 200
    assert closed.json["data"]["status"] == "closed"
    assert closed.json["data"]["closed_at"] is not None
    with nothing_written(rows):
        again = getattr(people, who).post("/consultations/5/close")
        paid = people.patient.pay(5)
        put = people.booking.put("/consultations/5", {"patient_id": people.patient.id})
        put_for_a_new_patient = people.booking.put(
            "/consultations/5", {"patient": {"email": "m@b.example", "name": "M"}}
        )
    assert (again.status_code, again.json["data"]) == (200, closed.json["data"])
    assert code(paid) == code(put) == code(put_for_a_new_patient) == (409, "consultation-closed")
    assert people.patient.get("/consultations/5").json["data"]["status"] == "closed"


def test_a_pending_payment_is_cancelled_first(people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5, key="k").json["data"]["payment_id"]

    closed = people.admin.post("/consultations/5/close")

    assert (closed.status_code, closed.json["data"]["active_payment"]) == (200, None)
    assert state_of(rows, payment_id)["status"] == "cancelled"
    assert state_of(rows, payment_id)["version"] == 1
    actor = rows.one("SELECT actor FROM payment_events WHERE event = 'payment.cancelled'")["actor"]
    assert actor == f"admin:{people.admin.id}"
    assert code(people.patient.pay(5)) == (409, "consultation-closed")
    # A retry of what was done before is answered as it was.
    assert people.patient.pay(5, key="k").status_code == 201


def test_a_paid_one_stays_paid_and_can_be_refunded(people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]
    people.patient.confirm(payment_id)

    closed = people.admin.post("/consultations/5/close")

    assert closed.json["data"]["active_payment"]["status"] == "completed"
    assert closed.json["data"]["status"] == "closed"
    # What is paid is said before what is closed.
    assert code(people.patient.pay(5)) == (409, "active-payment-exists")
    assert people.admin.post(f"/payments/{payment_id}/refund").status_code == 200
    assert code(people.patient.pay(5)) == (409, "consultation-closed")
    assert rows.count("payments") == 1


def test_the_order_of_judgement(people: People, rows: Rows) -> None:
    """Key, active payment, closed, currency, fee: each wrong together with what comes after it."""
    people.booking.put("/consultations/5", {"patient_id": people.patient.id, "fee": 7000})
    people.patient.pay(6, key="used")
    people.admin.post("/consultations/5/close")
    rows.execute("UPDATE consultations SET currency = 'USD' WHERE id = 5")

    with nothing_written(rows):
        assert code(people.other.pay(5)) == (403, "forbidden")
        assert code(people.patient.pay(5, key="used")) == (422, "idempotency-key-reused")
        assert code(people.patient.pay(5, key="new")) == (409, "consultation-closed")


def test_who_may_close(people: People, rows: Rows) -> None:
    people.admin.put("/consultations/100", {"patient_id": people.patient.id})

    with nothing_written(rows):
        for who in (people.patient, people.other):
            assert who.post("/consultations/5/close").status_code == 403
        assert people.booking.post("/consultations/100/close").status_code == 403
        assert people.booking.post("/consultations/999/close").status_code == 404
        assert people.admin.post("/consultations/5/close", {"reason": "none"}).status_code == 422


def test_its_session_ends_at_the_gateway_first(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)

    assert stripe_app.people.admin.post("/consultations/5/close").status_code == 200

    assert stripe_app.fake.intents[reference]["status"] == "canceled"
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "cancelled"}
    assert state_of(rows, payment_id)["status"] == "cancelled"


def test_money_on_its_way_leaves_it_open(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.start_processing(reference)

    # Found out in this moment, and then known.
    for _ in range(2):
        refused = stripe_app.people.admin.post("/consultations/5/close")
        assert code(refused) == (409, "invalid-transition")
        assert refused.json["data"] == {"status": "processing"}
    assert state_of(rows, payment_id)["status"] == "processing"
    assert rows.one("SELECT closed_at FROM consultations WHERE id = 5") == {"closed_at": None}


def test_money_that_came_in_this_moment_stays(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    stripe_app.fake.pay(reference)

    closed = stripe_app.people.admin.post("/consultations/5/close")

    assert closed.json["data"]["active_payment"]["status"] == "completed"
    assert closed.json["data"]["status"] == "closed"
    assert state_of(rows, payment_id)["received_minor"] == 500_000


def test_a_silent_gateway_leaves_it_open(stripe_app: StripeApp, rows: Rows) -> None:
    payment_id, _ = open_by_card(stripe_app.people, 5)
    stripe_app.fake.misbehave("drop", path=INTENTS, times=None)
    stripe_app.fake.misbehave("drop", method="GET", path=INTENTS, times=None)

    assert code(stripe_app.people.admin.post("/consultations/5/close")) == (503, "gateway-unavailable")

    assert state_of(rows, payment_id)["status"] == "pending"
    assert rows.one("SELECT closed_at FROM consultations WHERE id = 5") == {"closed_at": None}
    stripe_app.fake.behave()
    assert stripe_app.people.admin.post("/consultations/5/close").status_code == 200
    assert trail_of(rows, payment_id) == ["payment.created", "payment.cancelled"]


@pytest.mark.parametrize("ended", ["expired", "failed", "cancelled"])
def test_late_money_of_a_closed_consultation_is_kept_for_staff(stripe_app: StripeApp, rows: Rows, ended: str) -> None:
    payment_id, reference = open_by_card(stripe_app.people, 5)
    # As if the gateway had ended its session by itself, and the money had been on its way all the same.
    rows.execute("UPDATE payments SET status = :ended", ended=ended)
    rows.execute("UPDATE payment_events SET to_status = :ended", ended=ended)
    rows.execute("UPDATE invoices SET status = 'void'")
    assert stripe_app.people.admin.post("/consultations/5/close").status_code == 200
    stripe_app.fake.pay(reference)

    tell(stripe_app, stripe_app.fake.intent_event("succeeded", reference))

    kept = state_of(rows, payment_id)
    assert (kept["status"], bool(kept["needs_review"]), kept["received_minor"]) == (ended, True, 500_000)
    assert trail_of(rows, payment_id)[-1] == "payment.quarantined"
    assert stripe_app.people.admin.post(f"/payments/{payment_id}/refund").status_code == 200
    assert not state_of(rows, payment_id)["needs_review"]


def test_late_money_that_is_confirmed_says_so(people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5, payment_method="gcash").json["data"]["payment_id"]
    rows.execute("UPDATE payments SET status = 'expired'")
    rows.execute("UPDATE payment_events SET to_status = 'expired'")
    rows.execute("UPDATE invoices SET status = 'void'")
    people.admin.post("/consultations/5/close")

    for _ in range(2):
        answer = people.admin.confirm(payment_id, "GC-1")
        assert code(answer) == (409, "consultation-closed")
        assert "recorded" in answer.json["detail"]
    assert state_of(rows, payment_id)["needs_review"]
    assert rows.count("payment_events", "event = 'payment.quarantined'") == 1


def test_closing_and_paying_at_once_never_disagree(people: People, rows: Rows) -> None:
    """Whoever is first: of a closed consultation nothing is left to be paid."""
    for consultation_id in range(1, 11):
        start = threading.Barrier(2)

        def close(consultation_id: int = consultation_id, start: threading.Barrier = start) -> None:
            start.wait()
            assert people.admin.post(f"/consultations/{consultation_id}/close").status_code == 200

        racer = threading.Thread(target=close)
        racer.start()
        start.wait()
        paid = people.patient.pay(consultation_id)
        racer.join()
        assert paid.status_code == 201 or code(paid) == (409, "consultation-closed")

    assert rows.count("consultations", "closed_at IS NOT NULL") == 10
    assert rows.count("payments", "status = 'pending'") == 0
    assert rows.count("payments") == rows.count("payments", "status = 'cancelled'")


def test_who_is_overtaken_in_every_round_is_told_to_try_again(
    people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payment that ends and another one that begins between each look and the writing."""
    plan = closing._plan
    rounds: list[int] = []

    def overtaken(*args: object, **kwargs: object) -> object:
        planned = plan(*args, **kwargs)  # type: ignore[arg-type]
        for payment_id in rounds[-1:]:
            assert people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200
        rounds.append(people.patient.pay(5).json["data"]["payment_id"])
        return planned

    monkeypatch.setattr(closing, "_plan", overtaken)
    refused = people.admin.post("/consultations/5/close")

    assert code(refused) == (409, "version-conflict")
    assert refused.json["retryable"] is True
    assert len(rounds) == closing.ROUNDS
    assert rows.one("SELECT closed_at FROM consultations WHERE id = 5") == {"closed_at": None}
    assert rows.count("payments", "status = 'pending'") == 1


def test_the_command_closes(people: People, rows: Rows, database: Database) -> None:
    people.patient.pay(5)
    with commands_on(database.url) as commands:
        (closed,) = commands.json("consultations", "close", 5)
        (again,) = commands.json("consultations", "close", 5)
        assert "Consultation not found" in commands.refused("consultations", "close", 999)

    assert closed == again
    assert (closed["status"], closed["active_payment"]) == ("closed", None)
    actor = rows.one("SELECT actor FROM payment_events WHERE event = 'payment.cancelled'")["actor"]
    assert actor.startswith("command:")

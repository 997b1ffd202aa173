"""POST /payments/{id}/refresh: the gateway is asked at most once in 2 s, and the payment follows its answer."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.gateway_webhooks import state_of, tell, trail_of
from tests.payments.test_checkout import checkout, create, problem
from tests.support.client import ApiResponse
from tests.support.people import Person
from tests.support.rows import Rows
from tests.support.service import at_once
from tests.support.stripe_apps import StripeApp, pay_by_card

SESSIONS = "/v1/checkout/sessions/"
RACERS = 6

pytestmark = pytest.mark.usefixtures("audited")


@pytest.fixture
def shop(stripe_apps: Callable[..., StripeApp]) -> StripeApp:
    return stripe_apps(STRIPE_CHECKOUT="hosted")


def opened(shop: StripeApp, consultation_id: int = 5) -> tuple[int, str]:
    payment_id = create(shop.people, consultation_id)
    return payment_id, checkout(shop.people.patient, payment_id).json["data"]["reference"]


def refresh(person: Person, payment_id: int) -> ApiResponse:
    return person.post(f"/payments/{payment_id}/refresh")


def asked(shop: StripeApp) -> int:
    return shop.fake.count("GET", SESSIONS)


def wait_is_over(rows: Rows) -> None:
    long_ago = rows.moment(datetime.now(UTC) - timedelta(seconds=3))
    rows.execute("UPDATE gateway_sessions SET refreshed_at = :at", at=long_ago)


@pytest.mark.parametrize(("do", "status"), [("pay", "completed"), ("later", "processing"), ("decline", "pending")])
def test_the_payment_is_brought_up_to_what_the_gateway_says(shop: StripeApp, rows: Rows, do: str, status: str) -> None:
    payment_id, reference = opened(shop)
    shop.fake.submit(reference, do)

    answer = refresh(shop.people.patient, payment_id)

    assert answer.status_code == 200
    assert (answer.json["data"]["status"], answer.json["data"]["payment"]["status"]) == (status, status)
    assert answer.headers["ETag"] == f'"{answer.json["data"]["payment"]["version"]}"'
    assert state_of(rows, payment_id)["status"] == status
    tell(shop, shop.fake.session_event("completed", reference)) if do == "pay" else None
    assert state_of(rows, payment_id)["version"] == (0 if do == "decline" else 1)


def test_many_who_wait_ask_once(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference = opened(shop)
    shop.fake.submit(reference)
    patients = [shop.people.seen_by(shop.app).patient for _ in range(RACERS)]

    answers = at_once([lambda patient=patient: refresh(patient, payment_id) for patient in patients])  # type: ignore[misc]

    assert {answer.status_code for answer in answers} == {200}
    assert asked(shop) == 1
    assert trail_of(rows, payment_id) == ["payment.created", "payment.completed"]


def test_the_gateway_is_asked_again_after_two_seconds(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference = opened(shop)
    assert refresh(shop.people.patient, payment_id).json["data"]["status"] == "pending"
    shop.fake.submit(reference)
    assert refresh(shop.people.patient, payment_id).json["data"]["status"] == "pending"
    assert asked(shop) == 1

    wait_is_over(rows)

    assert refresh(shop.people.patient, payment_id).json["data"]["status"] == "completed"
    assert asked(shop) == 2


@pytest.mark.parametrize("mode", ["drop", "error_before", "refuse"])
def test_a_silent_gateway_changes_nothing(shop: StripeApp, rows: Rows, mode: str) -> None:
    payment_id, reference = opened(shop)
    shop.fake.submit(reference)
    shop.fake.misbehave(mode, method="GET", path=SESSIONS)  # type: ignore[arg-type]  # one of its modes

    answer = refresh(shop.people.patient, payment_id)

    assert (answer.status_code, answer.json["data"]["status"]) == (200, "pending")
    assert state_of(rows, payment_id)["version"] == 0


def test_an_expired_session_ends_and_the_payment_stays(shop: StripeApp, rows: Rows) -> None:
    payment_id, reference = opened(shop)
    shop.fake.pass_expiry(reference)

    assert refresh(shop.people.patient, payment_id).json["data"]["status"] == "pending"
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "expired"}
    assert refresh(shop.people.patient, payment_id).status_code == 200
    assert asked(shop) == 1  # there is nothing left to ask about


def test_there_is_nothing_to_ask_of_people_of_a_paid_payment_and_before_a_checkout(
    stripe_app: StripeApp, rows: Rows
) -> None:
    by_hand = create(stripe_app.people, 6, payment_method="bank_transfer")
    checkout(stripe_app.people.patient, by_hand)
    paid = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    begun = create(stripe_app.people, 7)
    before = len(stripe_app.fake.received)

    for payment_id, status in ((by_hand, "pending"), (paid, "completed"), (begun, "pending")):
        assert refresh(stripe_app.people.patient, payment_id).json["data"]["status"] == status

    assert len(stripe_app.fake.received) == before
    assert rows.count("gateway_sessions", "refreshed_at IS NOT NULL") == 0


def test_who_may_refresh(shop: StripeApp, rows: Rows) -> None:
    payment_id, _ = opened(shop)
    people = shop.people
    assert refresh(people.admin, payment_id).status_code == 200
    assert problem(refresh(people.other, payment_id)) == (403, "forbidden")
    assert problem(refresh(people.booking, payment_id)) == (403, "forbidden")
    rows.execute("UPDATE consultations SET registered_by = :id WHERE id = 5", id=people.booking.id)
    assert refresh(people.booking, payment_id).status_code == 200
    assert problem(refresh(people.admin, 999_999_999)) == (404, "payment-not-found")
    assert shop.app.test_client().post(f"/api/v1/payments/{payment_id}/refresh").status_code == 401
    assert problem(people.patient.post(f"/payments/{payment_id}/refresh?now=1"))[0] == 422

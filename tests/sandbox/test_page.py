"""The sandbox's own checkout page: pay, decline, pay later, by an address that the service has signed."""

from urllib.parse import urlsplit

import pytest
from werkzeug.test import TestResponse

from tests.gateway_webhooks import state_of, trail_of
from tests.payments.test_checkout import checkout, create
from tests.support.apps import PRODUCTION, app_with
from tests.support.databases import Database
from tests.support.people import People
from tests.support.rows import Rows

pytestmark = pytest.mark.usefixtures("audited")


def opened(people: People) -> tuple[int, str]:
    """A payment and the path of its checkout page."""
    payment_id = create(people)
    return payment_id, urlsplit(checkout(people.patient, payment_id).json["data"]["redirect_url"]).path


def press(people: People, path: str, do: str) -> TestResponse:
    return people.anonymous().post(path, data={"do": do})


def test_pay_pays_and_leads_back(people: People, rows: Rows) -> None:
    payment_id, path = opened(people)
    shown = people.anonymous().get(path)
    assert shown.status_code == 200
    assert "5000.00 PHP" in shown.text
    assert "Consultation 5" in shown.text
    assert "no money moves" in shown.text

    answers = [press(people, path, "pay") for _ in range(2)]  # a double click

    assert [(answer.status_code, answer.headers["Location"]) for answer in answers] == [
        (303, "http://localhost/pay/return")
    ] * 2
    state = state_of(rows, payment_id)
    assert (state["status"], state["version"], state["received_minor"]) == ("completed", 1, 500_000)
    assert rows.one("SELECT status FROM gateway_sessions") == {"status": "succeeded"}
    assert rows.one("SELECT gateway, type FROM webhook_events") == {"gateway": "sandbox", "type": "checkout.paid"}
    assert people.anonymous().get(path).status_code == 410


def test_declined_may_be_tried_again(people: People, rows: Rows) -> None:
    payment_id, path = opened(people)

    declined = [press(people, path, "decline") for _ in range(2)]

    assert {answer.status_code for answer in declined} == {200}
    assert "Nothing was charged" in declined[0].text
    assert state_of(rows, payment_id)["status"] == "pending"
    assert trail_of(rows, payment_id) == ["payment.created", "payment.attempt_failed", "payment.attempt_failed"]
    assert press(people, path, "pay").status_code == 303
    assert state_of(rows, payment_id)["status"] == "completed"


def test_later_leads_back_without_paying(people: People, rows: Rows) -> None:
    payment_id, path = opened(people)

    assert press(people, path, "later").status_code == 303

    assert state_of(rows, payment_id)["status"] == "pending"
    assert people.anonymous().get(path).status_code == 200


def test_nobody_pays_by_a_checkout_that_has_ended(people: People, rows: Rows) -> None:
    payment_id, path = opened(people)
    assert people.patient.post(f"/payments/{payment_id}/cancel").status_code == 200

    assert people.anonymous().get(path).status_code == 410
    assert press(people, path, "pay").status_code == 303

    state = state_of(rows, payment_id)
    assert (state["status"], state["received_minor"]) == ("cancelled", 0)


@pytest.mark.parametrize("do", ["", "steal"])
def test_another_word_does_nothing(people: People, rows: Rows, do: str) -> None:
    payment_id, path = opened(people)

    assert press(people, path, do).status_code == 200

    assert trail_of(rows, payment_id) == ["payment.created"]


def test_an_address_that_nobody_signed_leads_nowhere(people: People, rows: Rows) -> None:
    payment_id, path = opened(people)
    for forged in (path[:-1], f"{path}x", "/sandbox/checkout/sandbox-1", "/sandbox/checkout/%00"):
        assert people.anonymous().get(forged).status_code == 404
        assert press(people, forged, "pay").status_code == 404
    assert state_of(rows, payment_id)["status"] == "pending"


def test_the_page_speaks_the_language_of_the_checkout(people: People) -> None:
    payment_id = create(people)
    path = people.patient.post(f"/payments/{payment_id}/checkout", headers={"Accept-Language": "id"})

    shown = people.anonymous().get(urlsplit(path.json["data"]["redirect_url"]).path, headers={"Accept-Language": "en"})

    assert '<html lang="id">' in shown.text
    assert "Bayar nanti" in shown.text


def test_the_page_runs_nothing_and_sends_its_form_home(people: People) -> None:
    _, path = opened(people)
    policy = people.anonymous().get(path).headers["Content-Security-Policy"]

    assert "form-action 'self' http://localhost;" in policy
    assert "frame-ancestors 'none'" in policy


def test_production_has_no_such_page(database: Database) -> None:
    with app_with(database.url, **PRODUCTION) as app:
        rules = {str(rule) for rule in app.url_map.iter_rules()}

    assert not any(rule.startswith("/sandbox") for rule in rules)

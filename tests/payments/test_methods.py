"""The payment methods on offer: a client may keep the list for an hour, and ask again by its ETag."""

import pytest

from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.people import People
from tests.support.redis_server import RedisServer


def test_the_list_can_be_kept_for_an_hour_and_asked_for_again(people: People) -> None:
    first = people.patient.get("/payment-methods")

    again = people.patient.get("/payment-methods", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "private, max-age=3600"
    card = {"code": "stripe", "name": "Card", "gateway": "sandbox", "checkout": "redirect"}
    assert first.json["data"][0] == card
    assert {method["checkout"] for method in first.json["data"][1:]} == {"instructions"}
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("if_match", ['"0"', 'W/"0"', "0"])
def test_a_condition_for_changes_means_nothing_to_the_list(people: People, if_match: str) -> None:
    answer = people.patient.get("/payment-methods", headers={"If-Match": if_match})

    assert answer.status_code == 200
    assert answer.json["data"]


def test_other_answers_are_not_to_be_kept(people: People) -> None:
    assert people.patient.get("/payments").headers["Cache-Control"] == "no-store"


def test_other_settings_find_no_old_list(database: Database, redis_server: RedisServer, people: People) -> None:
    redis_server.client.flushall()
    offered = {}
    for name, settings in (("with", {"ALLOW_SANDBOX_GATEWAY": "1"}), ("without", {})):
        with app_with(database.url, **redis_server.settings, **PRODUCTION, **settings) as app:
            with app.app_context():
                token = people.token_from(app, people.patient)
            answer = client_of(app).get(
                "/api/v1/payment-methods",
                base_url="https://localhost",
                headers={"Authorization": f"Bearer {token}"},
            )
            offered[name] = {method["code"] for method in answer.json["data"]}

    assert offered["with"] - offered["without"] == {"stripe"}

"""The payment methods on offer: kept for an hour, and forgotten when the settings change."""

import pytest

from tests.support.apps import PRODUCTION, app_with
from tests.support.databases import Database
from tests.support.people import People
from tests.support.redis_server import RedisServer


def test_the_list_can_be_kept_for_an_hour_and_asked_for_again(people: People) -> None:
    first = people.patient.get("/payment-methods")

    again = people.patient.get("/payment-methods", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "private, max-age=3600"
    assert first.json["data"][0] == {"code": "stripe", "name": "Card", "gateway": "sandbox"}
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("if_match", ['"0"', 'W/"0"', "0"])
def test_a_condition_for_changes_means_nothing_to_the_list(people: People, if_match: str) -> None:
    answer = people.patient.get("/payment-methods", headers={"If-Match": if_match})

    assert answer.status_code == 200
    assert answer.json["data"]


def test_other_answers_are_not_to_be_kept(people: People) -> None:
    assert people.patient.get("/payments").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "memory"])
def test_the_list_is_made_once(
    database: Database, redis_server: RedisServer, people: People, monkeypatch: pytest.MonkeyPatch, with_redis: bool
) -> None:
    redis_server.client.flushall()
    made = []
    from payments_app.payments import routes  # noqa: PLC0415

    render = routes._METHODS.dump
    monkeypatch.setattr(routes._METHODS, "dump", lambda methods: made.append(1) or render(methods))
    with app_with(database.url, **(redis_server.settings if with_redis else {})) as app:
        patient = people.seen_by(app).patient
        answers = {patient.get("/payment-methods").data for _ in range(3)}

    assert len(answers) == 1
    assert len(made) == 1
    assert len(redis_server.client.keys("payment:methods:*")) == with_redis


def test_other_settings_find_no_old_list(database: Database, redis_server: RedisServer, people: People) -> None:
    redis_server.client.flushall()
    offered = {}
    for name, settings in (("with", {"ALLOW_SANDBOX_GATEWAY": "1"}), ("without", {})):
        with app_with(database.url, **redis_server.settings, **PRODUCTION, **settings) as app:
            with app.app_context():
                token = people.token_from(app, people.patient)
            answer = app.test_client().get(
                "/api/v1/payment-methods",
                base_url="https://localhost",
                headers={"Authorization": f"Bearer {token}"},
            )
            offered[name] = {method["code"] for method in answer.json["data"]}

    assert offered["with"] - offered["without"] == {"stripe"}


def test_the_list_survives_a_redis_that_is_away(database: Database, people: People) -> None:
    with app_with(database.url, REDIS_URL="redis://127.0.0.1:1/0") as app:
        assert people.seen_by(app).patient.get("/payment-methods").status_code == 200


@pytest.mark.parametrize("garbage", ["<garbage>", b"\xff"])
def test_a_list_that_is_none_is_made_anew(
    database: Database, redis_server: RedisServer, people: People, garbage: str | bytes
) -> None:
    redis_server.client.flushall()
    with app_with(database.url, **redis_server.settings) as app:
        patient = people.seen_by(app).patient
        sound = patient.get("/payment-methods").data
        (name,) = redis_server.client.keys("payment:methods:*")
        redis_server.client.set(name, garbage)

        assert patient.get("/payment-methods").data == sound

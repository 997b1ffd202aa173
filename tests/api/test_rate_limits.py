"""Rate limits: what is counted, what is not, and what Redis has to do with it."""

from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest
import redis
from flask import Flask

from payments_app.api import rate_counts
from payments_app.redis_client import GuardedRedis
from tests.support.apps import app_with
from tests.support.client import ApiResponse, client_of
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.links import exchange, payer_of
from tests.support.people import PASSWORD, People
from tests.support.redis_server import RedisServer
from tests.support.service import at_once, statuses
from tests.support.waiting import wait_until


@pytest.fixture(params=["memory", "redis"])
def limited(
    request: pytest.FixtureRequest, apps: Callable[..., Flask], redis_server: RedisServer, people: People
) -> People:
    """The people at the endpoint of an app with the limits of the contract, counted here or in Redis."""
    redis_server.client.flushall()
    storage = redis_server.settings if request.param == "redis" else {}
    return people.seen_by(apps(RATELIMIT_ENABLED="true", **storage))


def redis_of(app: Flask) -> GuardedRedis:
    guarded: GuardedRedis = app.extensions["redis"]
    return guarded


def login(app: Flask, email: str, password: str, address: str = "192.0.2.1") -> ApiResponse:
    body = {"email": email, "password": password}
    return client_of(app).post("/api/login", json=body, environ_base={"REMOTE_ADDR": address})


def test_a_user_makes_ten_payments_a_minute(limited: People) -> None:
    answers = [limited.patient.pay(consultation) for consultation in range(1, 12)]

    assert [answer.status_code for answer in answers] == [201] * 10 + [429]
    refused = answers[-1]
    assert refused.content_type == "application/problem+json"
    assert refused.json["type"].endswith("/too-many-requests")
    assert refused.json["retryable"] is True
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert limited.other.pay(21).status_code == 201


def test_the_headers_count_down_and_retry_after_is_for_429_alone(limited: People) -> None:
    first = limited.patient.pay(1)
    second = limited.patient.pay(2)

    assert first.headers["X-RateLimit-Limit"] == "10"
    assert int(second.headers["X-RateLimit-Remaining"]) == int(first.headers["X-RateLimit-Remaining"]) - 1
    assert int(first.headers["X-RateLimit-Reset"]) > 1_700_000_000
    assert "Retry-After" not in first.headers
    assert not any(name.lower() == "x-ratelimit-retry-after" for name, _ in first.headers)


def test_replays_are_not_counted(limited: People) -> None:
    limited.patient.pay(1, key="k")
    for _ in range(15):
        assert limited.patient.pay(1, key="k").status_code == 201

    assert [limited.patient.pay(consultation).status_code for consultation in range(2, 11)] == [201] * 9


def test_refused_payments_are_counted(limited: People) -> None:
    limited.patient.pay(1)
    answers = [limited.patient.pay(1).status_code for _ in range(10)]

    assert answers == [409] * 9 + [429]


def test_the_limit_comes_after_the_token_and_before_the_body(limited: People) -> None:
    for consultation in range(1, 11):
        limited.patient.pay(consultation)

    assert limited.anonymous().post("/api/v1/payments").status_code == 401
    assert limited.patient.post("/payments", data=b"{", content_type="application/json").status_code == 429


def test_whoever_has_a_link_does_not_keep_the_patient_from_paying(limited: People) -> None:
    payer = payer_of(limited)

    assert [payer.pay(5).status_code for _ in range(11)] == [201, *[409] * 9, 429]
    assert limited.patient.pay(6).status_code == 201


def test_links_that_lead_nowhere_are_limited_by_network(limited: People) -> None:
    payer = payer_of(limited)

    def opened(token: str, address: str) -> int:
        return exchange(limited, token, environ_base={"REMOTE_ADDR": address}).status_code

    assert {opened(payer.link_token, "192.0.2.1") for _ in range(60)} == {200}
    assert {opened("unknown", "192.0.2.1") for _ in range(50)} == {404}
    assert opened("unknown", "192.0.2.1") == opened(payer.link_token, "192.0.2.1") == 429
    assert opened(payer.link_token, "192.0.2.2") == 200
    # Logins are counted by themselves.
    assert login(limited.app, limited.patient.email, PASSWORD).status_code == 200


def test_reading_is_not_limited(limited: People) -> None:
    assert {limited.patient.get("/payments").status_code for _ in range(60)} == {200}


def test_five_failed_logins_a_minute_for_one_email_from_one_address(limited: People) -> None:
    app, email = limited.app, limited.patient.email
    assert [login(app, email, "wrong").status_code for _ in range(5)] == [401] * 5

    refused = login(app, email.upper(), PASSWORD)

    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1


def test_nobody_can_lock_a_patient_out_by_guessing_from_elsewhere(limited: People) -> None:
    for _ in range(6):
        login(limited.app, limited.patient.email, "wrong", address="203.0.113.9")

    assert login(limited.app, limited.patient.email, PASSWORD, address="192.0.2.1").status_code == 200


def test_a_clinic_behind_one_address_is_not_locked_out(limited: People) -> None:
    for _ in range(6):
        login(limited.app, limited.patient.email, "wrong")

    assert login(limited.app, limited.other.email, PASSWORD).status_code == 200


def test_an_ipv6_network_is_one_however_many_addresses_guess(limited: People) -> None:
    app, email = limited.app, limited.patient.email
    guesses = [login(app, email, "wrong", address=f"2001:db8::{number:x}:1").status_code for number in range(6)]

    assert guesses == [401] * 5 + [429]
    assert login(app, email, PASSWORD, address="2001:db8:0:0:ffff:ffff:ffff:ffff").status_code == 429
    assert login(app, email, PASSWORD, address="2001:db8:0:1::1").status_code == 200


def test_all_emails_that_one_ipv6_network_tries_are_counted(database: Database, people: People) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="true", RATELIMIT_FAILED_LOGINS_PER_ADDRESS="6 per minute") as app:
        statuses = [
            login(app, f"guess{n}@example.com", "wrong", address=f"2001:db8::{n:x}").status_code for n in range(7)
        ]
        assert statuses == [401] * 6 + [429]
        assert login(app, people.patient.email, PASSWORD, address="2001:db8:1::1").status_code == 200


@pytest.mark.parametrize(
    ("written", "elsewhere"),
    [
        (["203.0.113.7", "203.0.113.7:51234", '"203.0.113.7:51235"', "::ffff:203.0.113.7"], "203.0.113.8:51234"),
        (["[2001:db8::1]", "[2001:db8::2]:443", '"[2001:db8::3]:51234"', "2001:db8::4"], "[2001:db8:0:1::1]:443"),
        (["unknown", "_hidden", "_hidden:_port", "203.0.113.256", "2001:db8::1::2", "["], "203.0.113.7"),
    ],
    ids=["IPv4", "IPv6", "cannot be read"],
)
def test_an_address_counts_as_one_however_a_trusted_proxy_writes_it(
    database: Database, people: People, written: list[str], elsewhere: str
) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="true", TRUSTED_PROXIES="1") as app:
        client = client_of(app)

        def guess(forwarded_for: str) -> int:
            wrong = {"email": people.patient.email, "password": "wrong"}
            return client.post("/api/login", json=wrong, headers={"X-Forwarded-For": forwarded_for}).status_code

        assert [guess(written[number % len(written)]) for number in range(6)] == [401] * 5 + [429]
        assert guess(elsewhere) == 401


def test_successful_logins_are_not_counted(limited: People) -> None:
    assert {login(limited.app, limited.patient.email, PASSWORD).status_code for _ in range(8)} == {200}


def test_an_address_that_tries_one_email_after_another_is_stopped(database: Database, people: People) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="true", RATELIMIT_FAILED_LOGINS_PER_ADDRESS="6 per minute") as app:
        statuses = [login(app, f"guess{n}@example.com", "wrong").status_code for n in range(7)]
        assert statuses == [401] * 6 + [429]
        assert login(app, people.patient.email, PASSWORD, address="203.0.113.9").status_code == 200


def test_all_processes_count_together_through_redis(
    database: Database, redis_server: RedisServer, people: People
) -> None:
    redis_server.client.flushall()
    settings = {"RATELIMIT_ENABLED": "true", **redis_server.settings}
    with app_with(database.url, **settings) as one, app_with(database.url, **settings) as two:
        first, second = people.seen_by(one).patient, people.seen_by(two).patient
        statuses = [(first if c % 2 else second).pay(c).status_code for c in range(1, 12)]

    assert statuses == [201] * 10 + [429]


def test_of_many_at_once_a_process_lets_the_limit_through(limited: People) -> None:
    limited.add_consultations("patient", 22, 61)
    calls = [limited.seen_by(limited.app).patient.pay for _ in range(40)]

    answers = at_once([lambda pay=pay, n=n: pay(n) for n, pay in enumerate(calls, start=22)])  # type: ignore[misc]

    assert statuses(answers) == {201: 10, 429: 30}


def test_of_many_failed_logins_at_once_five_are_heard(limited: People) -> None:
    email = limited.patient.email

    assert statuses(at_once([lambda: login(limited.app, email, "wrong")] * 20)) == {401: 5, 429: 15}


def test_logins_that_succeed_at_once_are_all_heard(limited: People) -> None:
    email = limited.patient.email

    assert statuses(at_once([lambda: login(limited.app, email, PASSWORD)] * 20)) == {200: 20}


def test_twins_of_one_payment_are_one_request_however_many_come_at_once(limited: People) -> None:
    calls = [limited.seen_by(limited.app).patient.pay for _ in range(20)]

    answers = at_once([lambda pay=pay: pay(5, key="k") for pay in calls])  # type: ignore[misc]

    assert statuses(answers) == {201: 20}
    assert limited.patient.pay(6).headers["X-RateLimit-Remaining"] == "8"


def test_who_waits_for_a_place_in_vain_is_told_to_come_back_soon(
    limited: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_counts, "WAIT_SECONDS", 0)
    calls = [limited.seen_by(limited.app).patient.pay for _ in range(40)]

    answers = at_once([lambda pay=pay: pay(5, key="k") for pay in calls])  # type: ignore[misc]

    assert set(statuses(answers)) <= {201, 429}
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} <= {"1"}
    assert limited.patient.pay(5, key="k").status_code == 201


def test_a_request_that_fails_gives_its_place_back(limited: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments_app.payments.routes.creation.create", lambda *_arguments, **_more: 1 // 0)
    assert [limited.patient.pay(5).status_code for _ in range(11)] == [500] * 10 + [429]


def test_when_redis_goes_away_a_process_goes_on_with_what_it_has_counted(
    database: Database, redis_server: RedisServer, people: People
) -> None:
    redis_server.client.flushall()
    with app_with(database.url, RATELIMIT_ENABLED="true", **redis_server.settings) as app:
        patient = people.seen_by(app).patient
        before = [patient.pay(consultation).status_code for consultation in range(1, 6)]
        redis_server.kill()
        after = [patient.pay(consultation).status_code for consultation in range(6, 14)]
        redis_server.start()

    assert before == [201] * 5
    assert after == [201] * 5 + [429] * 3


def test_a_redis_that_forgets_lets_no_more_through(
    database: Database, redis_server: RedisServer, people: People
) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="true", **redis_server.settings) as app:
        patient, answers = people.seen_by(app).patient, []
        for consultation in range(1, 14):
            redis_server.client.flushall()
            answers.append(patient.pay(consultation).status_code)

    assert answers == [201] * 10 + [429] * 3


def test_a_window_ends_when_it_ends_in_redis(database: Database, redis_server: RedisServer, people: People) -> None:
    """Or else a process that heard of a user later than others would refuse what they let through."""
    redis_server.client.flushall()
    settings = {"RATELIMIT_ENABLED": "true", "RATELIMIT_PAYMENTS": "2 per hour", **redis_server.settings}
    with app_with(database.url, **settings) as app:
        patient = people.seen_by(app).patient
        (name,) = [f"payment:rate:payments:user:{patient.id}"]
        redis_server.client.set(name, "1", px=1_000)

        answers = [patient.pay(1), patient.pay(2)]
        wait_until(lambda: not redis_server.client.exists(name))
        answers.append(patient.pay(3))

    assert [answer.status_code for answer in answers] == [201, 429, 201]
    assert answers[1].headers["Retry-After"] == "1"


def test_a_count_in_redis_always_ends(database: Database, redis_server: RedisServer, people: People) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="true", **redis_server.settings) as app:
        patient = people.seen_by(app).patient
        name = f"payment:rate:payments:user:{patient.id}"
        redis_server.client.set(name, "30")  # without an end
        assert patient.pay(1).status_code == 201
        assert patient.pay(2).status_code == 429
        assert 0 < redis_server.client.ttl(name) <= 60
        for strange in ("a text", ""):
            redis_server.client.set(name, strange)
            assert patient.pay(2).status_code in (201, 409)
        redis_server.client.delete(name)
        redis_server.client.rpush(name, "a list")
        assert patient.pay(3).status_code == 201
        assert client_of(app).get("/readyz").json["parts"]["redis"] == "ok"


def test_the_limits_can_be_switched_off(people: People) -> None:
    answers = [people.patient.pay(consultation) for consultation in range(1, 16)]

    assert {answer.status_code for answer in answers} == {201}
    assert "X-RateLimit-Limit" not in answers[0].headers


def read_only(client: redis.Redis) -> None:
    """A replica of a server that is not there: it answers reads and PING."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


FAULTS: dict[str, tuple[Callable[[redis.Redis], object], str]] = {
    "read-only": (read_only, "read only replica"),
    "full": (lambda client: client.config_set("maxmemory", "1"), "used memory"),
    "alone": (lambda client: client.config_set("min-replicas-to-write", "1"), "good replicas"),
    "locked": (lambda client: client.config_set("requirepass", "another"), "uthenticat"),
}


@on_sqlite
@pytest.mark.parametrize("fault", FAULTS)
def test_a_redis_that_takes_no_writes_is_as_good_as_none_and_it_is_said(
    database: Database, people: People, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    hurt, reason = FAULTS[fault]
    with closing(RedisServer()) as server, ExitStack() as stack:
        hurt(server.client)
        settings = {"RATELIMIT_ENABLED": "true", **server.settings}
        app = stack.enter_context(app_with(database.url, **settings))
        patient = people.seen_by(app).patient
        redis_of(app).breaker._cool_down_seconds = 0  # each request looks whether Redis is back
        statuses_in_turn = [patient.pay(consultation).status_code for consultation in range(1, 21)]
        ready = client_of(app).get("/readyz")
        commands = stack.enter_context(commands_on(database.url, **settings))
        (said,) = [line for line in commands.run("check").output.splitlines() if line.split()[1] == "redis"]

    assert statuses_in_turn == [201] * 10 + [429] * 10
    assert (ready.status_code, ready.json["status"], ready.json["parts"]["redis"]) == (200, "degraded", "degraded")
    assert said.startswith("note  redis        is not used: each process counts rate limits for itself (")
    assert reason in said
    assert [record.getMessage() for record in caplog.records if "Redis is back" in record.getMessage()] == []


def test_an_address_is_believed_from_as_many_proxies_as_are_ours(database: Database, people: People) -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.7, 192.0.2.99"}
    for proxies, outcome in (("0", 429), ("1", 429), ("2", 401)):
        with app_with(database.url, RATELIMIT_ENABLED="true", TRUSTED_PROXIES=proxies) as app:
            client = client_of(app)
            wrong = {"email": people.patient.email, "password": "wrong"}
            for _ in range(5):
                client.post("/api/login", json=wrong, headers=forwarded)
            # The same last proxy, another client behind it; only two trusted hops tell them apart.
            other = {"X-Forwarded-For": "198.51.100.8, 192.0.2.99"}
            assert client.post("/api/login", json=wrong, headers=other).status_code == outcome


def test_redis_may_be_reached_by_a_socket(database: Database) -> None:
    with app_with(database.url, REDIS_URL="unix:///nowhere/redis.sock") as app:
        assert client_of(app).get("/api/v1/me").status_code == 401

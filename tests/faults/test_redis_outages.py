"""Redis killed, paused, flushed or never there, in the middle of a storm: nobody is refused, and nobody pays twice."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from payments_app.redis_client import GuardedRedis, RedisUnavailable, current_redis
from tests.support.apps import app_with
from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite
from tests.support.people import People
from tests.support.redis_server import LONGEST_TIMEOUT_MS, RedisServer
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.service import Service, at_once, statuses
from tests.support.waiting import wait_until

CONSULTATIONS = range(1, 21)
CLICKS_EACH = 5


@pytest.fixture(scope="module")
def fragile(request: pytest.FixtureRequest, database: Database) -> Iterator[tuple[Service, RedisServer]]:
    """A service and a Redis of its own, which is about to have a bad day. The two extremes of the strategies."""
    redis_server = RedisServer()
    with Service.started(database.url, PAYMENT_LOCKING=request.param, REDIS_URL=redis_server.url) as service:
        yield service, redis_server
    redis_server.close()


def nothing(_redis_server: RedisServer) -> None:
    pass


def flush_again_and_again(redis_server: RedisServer) -> None:
    for _ in range(50):
        redis_server.client.flushall()


@pytest.mark.usefixtures("audited")
# Redis is the same whatever the database: in the short form on one.
@pytest.mark.parametrize(
    ("database", "fragile"),
    [
        pytest.param("sqlite", "hybrid", marks=pytest.mark.long),
        ("postgresql", "hybrid"),
        ("postgresql", "optimistic"),
        pytest.param("sqlite", "optimistic", marks=pytest.mark.long),
    ],
    indirect=True,
    scope="session",
)
@pytest.mark.parametrize(
    ("hurt", "heal"),
    [
        (RedisServer.kill, RedisServer.start),
        (RedisServer.pause, RedisServer.resume),
        (flush_again_and_again, nothing),
        (lambda server: server.client.execute_command("DEBUG", "SLEEP", "0.5"), nothing),
    ],
    ids=["killed", "stopped", "flushed", "sleeping"],
)
def test_a_redis_that_goes_away_in_mid_storm_costs_nobody_anything(
    fragile: tuple[Service, RedisServer],
    people: People,
    rows: Rows,
    hurt: Callable[[RedisServer], None],
    heal: Callable[[RedisServer], None],
) -> None:
    service, redis_server = fragile
    redis_server.client.flushall()
    clicks = [
        lambda c=consultation, n=click: service.pay(people.patient, c, f"{c}-{n}")
        for click in range(CLICKS_EACH)
        for consultation in CONSULTATIONS
    ]
    # In the middle: when a fifth of the consultations has been paid.
    hurting = threading.Thread(target=lambda: hurt_when_some_are_paid(rows, lambda: hurt(redis_server)))
    hurting.start()
    answers = at_once(clicks)
    hurting.join()

    # While it is away, everybody's second click is told of the first, and every key still answers as it did.
    replays = at_once([lambda c=c: service.pay(people.patient, c, winner(answers, c)) for c in CONSULTATIONS])  # type: ignore[misc]
    heal(redis_server)
    after = at_once([lambda c=c: service.pay(people.patient, c, winner(answers, c)) for c in CONSULTATIONS])  # type: ignore[misc]

    assert statuses(answers) == {201: 20, 409: 80}
    assert {a.json()["type"].rpartition("/")[2] for a in answers if a.status_code == 409} == {"active-payment-exists"}
    assert [a.text for a in replays] == [a.text for a in after] == [winning(answers, c).text for c in CONSULTATIONS]
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 20)


def winning(answers: list[requests.Response], consultation: int) -> requests.Response:
    (won,) = (
        answer
        for answer in answers
        if answer.status_code == 201 and answer.json()["data"]["payment"]["consultation_id"] == consultation
    )
    return won


def winner(answers: list[requests.Response], consultation: int) -> str:
    return winning(answers, consultation).headers["Idempotency-Key"]


def hurt_when_some_are_paid(rows: Rows, hurt: Callable[[], None]) -> None:
    wait_until(lambda: rows.count("payments") >= len(CONSULTATIONS) // 5)
    hurt()


@long_on_sqlite
def test_a_redis_that_was_never_there_is_not_missed(database: Database, people: People, rows: Rows) -> None:
    with Service.started(database.url, PAYMENT_LOCKING="hybrid", REDIS_URL="redis://127.0.0.1:1/0") as service:
        answers = at_once([lambda n=n: service.pay(people.patient, 5, f"k{n}") for n in range(50)])  # type: ignore[misc]
    log = service.log.read_text()

    assert statuses(answers) == {201: 1, 409: 49}
    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)
    # One line for each of the two processes, however many requests found it away.
    assert log.count("Redis is away") == 2


def test_a_redis_that_may_be_slow_is_waited_for(database: Database, redis_server: RedisServer, people: People) -> None:
    """By default the service would go on without it, and hold no lease."""
    with app_with(database.url, PAYMENT_LOCKING="redis", **redis_server.settings) as app:
        redis_server.client.client_pause(400)  # four times the default

        assert people.seen_by(app).patient.pay(5, key="k").status_code == 201
        with app.app_context():
            assert current_redis().breaker.is_open is False  # type: ignore[union-attr]  # it has one
    assert redis_server.client.keys("payment:idempotency:*:k")


def test_the_breaker_lets_one_in_to_look_and_closes_when_redis_is_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = GuardedRedis(redis_server.url, timeout_ms=LONGEST_TIMEOUT_MS, cool_down_seconds=0)
    redis_server.kill()
    with caplog.at_level(logging.INFO, "payments_app.redis_client"):
        for _ in range(5):
            with pytest.raises(RedisUnavailable):
                guarded.call(lambda client: client.ping())
        assert guarded.breaker.is_open
        redis_server.start()
        assert guarded.call(lambda client: client.ping())

    assert not guarded.breaker.is_open
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["Redis is away", "Redis is back"]


def test_an_open_breaker_asks_nobody(redis_server: RedisServer) -> None:
    guarded = GuardedRedis(redis_server.url, timeout_ms=LONGEST_TIMEOUT_MS, cool_down_seconds=3600)
    redis_server.kill()
    with pytest.raises(RedisUnavailable):
        guarded.call(lambda client: client.ping())
    redis_server.start()
    asked: list[Any] = []

    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            guarded.call(asked.append)

    assert asked == []


def test_one_strange_key_does_not_open_the_breaker(redis_server: RedisServer) -> None:
    guarded = GuardedRedis(redis_server.url, timeout_ms=LONGEST_TIMEOUT_MS)
    redis_server.client.rpush("strange", "a list")
    redis_server.client.execute_command("SET", "stranger", b"\xff\xfe")

    with pytest.raises(RedisUnavailable):
        guarded.call(lambda client: client.get("strange"))
    assert guarded.run([("GET", "strange"), ("GET", "stranger"), ("ECHO", "here")]) == [None, "\ufffd\ufffd", "here"]
    assert guarded.run([("ECHO", "next")]) == ["next"]

    assert not guarded.breaker.is_open
    assert guarded.call(lambda client: client.ping())

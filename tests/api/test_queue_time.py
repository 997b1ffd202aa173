"""A request that waited too long for a thread is refused before any work; the header is a trusted proxy's."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from payments_app import clock
from payments_app.api.queue_time import LONGEST_WAIT_SECONDS, NOT_BELIEVED_SECONDS
from tests.support.apps import app_with, engine_of
from tests.support.client import ApiResponse
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.statements import statements_sent

pytestmark = on_sqlite

# Seconds that a test may take between its header and the response.
MARGIN_SECONDS = 10


@pytest.fixture
def proxied(database: Database, people: People) -> Iterator[People]:
    """The people at a service behind one proxy."""
    with app_with(database.url, TRUSTED_PROXIES="1") as app:
        yield people.seen_by(app)


def passed_on(seconds_ago: float) -> str:
    """What nginx writes (t=$msec)."""
    return f"t={(clock.now() - timedelta(seconds=seconds_ago)).timestamp():.3f}"


def pay(people: People, started: str) -> ApiResponse:
    body = {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"}
    return people.patient.post("/payments", body, headers={"X-Request-Start": started})


def value(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


def test_a_request_that_waited_too_long_is_refused_before_any_work(proxied: People, rows: Rows) -> None:
    before = value("payments_queue_refusals_total"), value("payments_queue_seconds_count")
    with statements_sent(engine_of(proxied.app)) as sent:
        answer = pay(proxied, passed_on(LONGEST_WAIT_SECONDS + 1))

    assert answer.status_code == 503
    assert answer.json["type"].endswith("/overloaded")
    assert (answer.json["retryable"], answer.headers["Retry-After"]) == (True, "2")
    assert (sent, rows.count("payments")) == ([], 0)
    assert (value("payments_queue_refusals_total"), value("payments_queue_seconds_count")) == (
        before[0] + 1,
        before[1] + 1,
    )
    assert pay(proxied, passed_on(LONGEST_WAIT_SECONDS - MARGIN_SECONDS)).status_code == 201
    assert value("payments_queue_seconds_count") == before[1] + 2


def test_what_is_no_time_that_a_proxy_writes_is_ignored(proxied: People) -> None:
    before = value("payments_queue_seconds_count")
    ignored = [
        *("", "t=", "t=yesterday", "t=-1.000", "t=1e9", "t=nan", "t=1700000000", "t=17000000000.000"),
        *("1700000000.000", "t=0000000001.000", "t=\xb9700000000.000", f"{passed_on(20)}, {passed_on(20)}"),
        *(passed_on(-60), passed_on(NOT_BELIEVED_SECONDS + MARGIN_SECONDS)),
    ]

    for started in ignored:
        answer = proxied.patient.get("/payments", headers={"X-Request-Start": started})
        assert answer.status_code == 200, started
    assert value("payments_queue_seconds_count") == before


def test_without_a_trusted_proxy_the_header_means_nothing(people: People) -> None:
    assert pay(people, passed_on(20)).status_code == 201

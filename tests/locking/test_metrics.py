"""Numbers are of all processes together, whichever of them is asked."""

import re

import requests

from tests.support.databases import Database
from tests.support.dialects import long_on_sqlite, on_sqlite
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.service import Service, at_once
from tests.support.waiting import PATIENCE_SECONDS


def scraped(service: Service) -> list[str]:
    """All numbers, from responses of both processes: asked often enough to meet both."""
    responses = at_once([lambda: requests.get(f"{service.url}/metrics", timeout=PATIENCE_SECONDS)] * 12)
    return [response.text for response in responses]


def number(pages: list[str], name: str) -> float:
    """The same number in every response."""
    shown = {
        re.search(rf"^{re.escape(name)} (.+)$", page, re.MULTILINE)[1]  # type: ignore[index]  # or the test fails
        for page in pages
    }
    (told,) = shown
    return float(told)


@long_on_sqlite
def test_what_both_processes_do_is_counted_together(
    database: Database, redis_server: RedisServer, people: People
) -> None:
    redis_server.client.flushall()
    with Service.started(database.url, PAYMENT_LOCKING="redis", **redis_server.settings) as service:
        for key in ("k", "k", "other"):
            at_once([lambda c=c, k=key: service.pay(people.patient, c, f"{k}{c}") for c in range(1, 21)])  # type: ignore[misc]

        pages = scraped(service)
        served = 'payments_http_requests_total{method="POST",route="/api/v1/payments",status="%d"}'
        assert number(pages, 'payments_lock_wait_seconds_count{outcome="acquired"}') >= 40
        assert number(pages, 'payments_created_total{method="stripe"}') == 20
        assert number(pages, served % 201) == 40
        assert number(pages, served % 409) == 20
        assert number(pages, 'payments_duplicates_stopped_total{layer="key"}') == 20
        assert number(pages, 'payments_duplicates_stopped_total{layer="index"}') == 20
        assert number(pages, "payments_db_connections_max") == 2 * (12 if "postgresql" in database.url else 15)


@on_sqlite
def test_processes_that_go_on_without_redis_are_counted(database: Database, people: People) -> None:
    with Service.started(database.url, PAYMENT_LOCKING="redis", REDIS_URL="redis://127.0.0.1:1/0") as service:
        at_once([lambda c=c: service.pay(people.patient, c, f"k{c}") for c in range(1, 21)])  # type: ignore[misc]

        pages = scraped(service)
        open_now = number(pages, "payments_redis_breaker_open")
        assert open_now == number(pages, "payments_redis_breaker_openings_total")
        assert 1 <= open_now <= 2

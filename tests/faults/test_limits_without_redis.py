"""Rate limits of a real service whose Redis takes no writes: reads and PING are answered as ever."""

import re
from contextlib import closing

import requests

from tests.support.databases import Database
from tests.support.dialects import on_postgresql
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.service import Service, at_once, statuses
from tests.support.waiting import PATIENCE_SECONDS, wait_until

WORKERS = 2
LIMIT = 10
BREAKERS = re.compile(r"^payments_redis_breaker_open (\S+)$", re.MULTILINE)


def processes_without_redis(service: Service) -> float:
    """As the metric says, after every process may have asked its Redis."""
    requests.get(f"{service.url}/readyz", timeout=PATIENCE_SECONDS)
    (value,) = BREAKERS.findall(requests.get(f"{service.url}/metrics", timeout=PATIENCE_SECONDS).text)
    return float(value)


@on_postgresql
def test_whatever_redis_does_no_process_lets_more_through_than_the_limit(database: Database, people: People) -> None:
    people.add_consultations("patient", 22, 86)
    with (
        closing(RedisServer()) as redis_server,
        Service.started(database.url, WORKERS, RATELIMIT_ENABLED="true", **redis_server.settings) as service,
    ):
        # Redis counts some, and then takes no more: it has become a replica of a server that is not there.
        together = statuses([service.pay(people.patient, number, f"k{number}") for number in range(22, 27)])
        redis_server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        answers = at_once([lambda n=n: service.pay(people.patient, n, f"k{n}") for n in range(27, 87)])  # type: ignore[misc]

        assert together == {201: 5}
        assert set(statuses(answers)) == {201, 429}
        assert LIMIT - 5 <= statuses(answers)[201] <= WORKERS * LIMIT - 5
        assert {answer.headers["X-RateLimit-Remaining"] for answer in answers if answer.status_code == 429} == {"0"}

        ready = requests.get(f"{service.url}/readyz", timeout=PATIENCE_SECONDS)
        assert (ready.status_code, ready.json()["status"], ready.json()["parts"]["redis"]) == (
            200,
            "degraded",
            "degraded",
        )
        wait_until(lambda: processes_without_redis(service) == WORKERS)
        assert service.log.read_text().count("Redis is away") == WORKERS

        redis_server.client.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: processes_without_redis(service) == 0)

"""The full stack: nginx, gunicorn, PostgreSQL and Redis as in production, and people who pay through it."""

import itertools
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from payments_app.accounts.models import Role
from tests.support.apps import app_with, engine_of
from tests.support.nginx import Nginx, nginx_for
from tests.support.own_server import OwnServer, own_postgresql
from tests.support.people import People, Person
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.service import free_port
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Unpaid consultations; far more than the tests pay.
CONSULTATIONS = 4_000

PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": os.urandom(32).hex(),
    "JWT_SECRET_KEY": os.urandom(32).hex(),
    "ALLOW_SANDBOX_GATEWAY": "1",  # there is no Stripe here
    "TRUSTED_PROXIES": "1",
    "PUBLIC_URL": "https://payments.example.org",
    "WEB_CONCURRENCY": "2",
    # The load is sent by one user, who may pay without limit; failed logins stay limited.
    "RATELIMIT_PAYMENTS": "1000000 per minute",
}


@dataclass
class Stack:
    """All running servers, and unpaid consultations."""

    nginx: Nginx
    service: SocketActivated
    database: OwnServer
    redis: RedisServer
    people: People
    rows: Rows
    _consultations: Iterator[int] = field(default_factory=lambda: iter(range(1, CONSULTATIONS + 1)))

    def unpaid(self) -> int:
        """The id of a consultation that no other test uses."""
        return next(self._consultations)

    def pay(
        self, client: requests.Session, consultation_id: int, key: str, person: Person | None = None
    ) -> requests.Response:
        body: dict[str, Any] = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"}
        headers = {**(person or self.people.patient).authorization, "Idempotency-Key": key}
        url = f"{self.nginx.url}/api/v1/payments"
        return client.post(url, json=body, headers=headers, timeout=PATIENCE_SECONDS)

    def get(self, client: requests.Session, path: str) -> requests.Response:
        headers = self.people.patient.authorization
        return client.get(f"{self.nginx.url}{path}", headers=headers, timeout=PATIENCE_SECONDS)

    @contextmanager
    def under_load(self, clients: int = 4) -> Iterator["Load"]:
        """While the block runs, so many clients each pay a consultation, list payments, and pay the next."""
        load = Load(self)
        threads = [threading.Thread(target=load.run, args=(f"127.0.1.{number + 1}",)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            load.wait_for_more()
            yield load
            load.wait_for_more()  # the load goes on after the fault
        finally:
            load.is_over.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)


Send = Callable[[requests.Session], requests.Response]


class Load:
    """Counts the responses to many clients, each with its own network address."""

    # Below nginx's limit for one address (20 a second, and 100 at once), however long it takes.
    PAYMENTS_OF_A_CLIENT = 100

    # Seconds between two requests of a client, so that the machine has time for the fault itself.
    PAUSE_SECONDS = 0.02

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._consultations = threading.Lock()
        self.is_over = threading.Event()
        # A list, because threads that add to a counter can lose each other's additions.
        self._answers: list[tuple[str, int | str]] = []

    @property
    def answers(self) -> Counter[tuple[str, int | str]]:
        return Counter(self._answers)

    @property
    def paid(self) -> int:
        return self.answers["POST", 201]

    def run(self, address: str) -> None:
        numbers = itertools.count()
        with self._stack.nginx.client(address) as client:
            while not self.is_over.wait(self.PAUSE_SECONDS):
                if next(numbers) < self.PAYMENTS_OF_A_CLIENT:
                    self._note("POST", self._pay, client)
                self._note("GET", self._look, client)

    def wait_for_more(self) -> None:
        """Wait until a few dozen more have been answered."""
        enough = len(self._answers) + 30
        wait_until(lambda: len(self._answers) >= enough)

    def _note(self, method: str, send: Send, client: requests.Session) -> None:
        try:
            self._answers.append((method, send(client).status_code))
        except requests.RequestException as error:
            self._answers.append((method, repr(error)))

    def _pay(self, client: requests.Session) -> requests.Response:
        with self._consultations:
            consultation_id = self._stack.unpaid()
        return self._stack.pay(client, consultation_id, f"load-{consultation_id}")

    def _look(self, client: requests.Session) -> requests.Response:
        return self._stack.get(client, "/api/v1/payments?per_page=1")


@contextmanager
def running_stack(redis: RedisServer) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="payments-stack-") as name, own_postgresql() as database:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user if root starts nginx
        health_port = free_port()
        health = {"HEALTH_BIND": f"127.0.0.1:{health_port}"}
        environment = {**PRODUCTION, **health, "DATABASE_URL": database.url, **redis.settings}
        secrets = {name: PRODUCTION[name] for name in ("SECRET_KEY", "JWT_SECRET_KEY")}
        service = SocketActivated(folder, **environment)
        with app_with(database.url, **secrets) as app, nginx_for(service.path, folder, health_port) as nginx:
            people = People(app)
            people.add_consultations(Role.PATIENT, 1, CONSULTATIONS)
            service.start()
            try:
                yield Stack(nginx, service, database, redis, people, Rows(engine_of(app)))
            finally:
                service.close()

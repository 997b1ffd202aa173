"""Each defence, the attack that it is there for, and what comes of that attack without it."""

import multiprocessing
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

import urllib3
from flask import Flask
from sqlalchemy import text
from urllib3.exceptions import HTTPError

from payments_app.proof import repository
from payments_app.proof.attacks import ATTACKS, attack
from payments_app.proof.client import Client
from payments_app.proof.promises import Attack, Violation
from payments_app.proof.scenario import LoadProfile, Scenario
from tests.prove.defences import weaknesses
from tests.prove.defences.card_attacks import DOUBLED_MONEY, DOUBLED_WEBHOOK, FORGED_WEBHOOK, STRIPE
from tests.prove.defences.weaknesses import (
    LOOK_EACH_TIME,
    NO_BALANCE,
    NO_LINK_CHECK,
    NO_LOOK,
    NO_REVOCATION,
    NO_SIGNATURE,
    NO_VERSION,
    PLAIN_EVENT,
    PLAIN_INSERT,
)
from tests.support.apps import app_with, engine_of, testing
from tests.support.databases import empty
from tests.support.fresh_databases import fresh_database
from tests.support.guards import ADD_CHECK, CREATE_INDEX, DROP_CHECK, DROP_INDEX
from tests.support.redis_server import RedisServer
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

CROWD = LoadProfile(clients=16, share=16)

# An attack that needs luck is made until it gets through; so often only where it has lost what should make it succeed.
TRIES = 30

# Where a defence is expected to hold, and where all are in place.
TRIES_THAT_FAIL = 2

STORM, _TWINS, KEY_REUSE, CONFIRMS, CONFIRM_AGAINST_CANCEL, ONE_TRANSACTION, REFUNDS, *_, LINKS = ATTACKS
ALL_ATTACKS = (*ATTACKS, FORGED_WEBHOOK, DOUBLED_WEBHOOK, DOUBLED_MONEY)

# What a service does that is not well, and that harms nobody's money.
NO_HARM = {
    "an answer that no promise allows",
    "the attack could not begin",
    "no payment was made",
    "neither was done",
    "no confirm was done",
    "nothing was paid",
    "no refund was made",
    "money that could be returned was not",
    "no session was opened",
}


def _dropped(table: str, constraint: str, definition: str) -> tuple[str, str]:
    """The statements that drop a constraint, and that put it in its place again."""
    return (
        f"ALTER TABLE {table} DROP CONSTRAINT {constraint}",
        f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}",
    )


_KEYS = _dropped("idempotency_keys", "pk_idempotency_keys", "PRIMARY KEY (user_id, key)")
_TRANSACTIONS = _dropped("payments", "uq_payments_transaction", "UNIQUE (gateway, payment_method, transaction_id)")
_NORMALIZED = "uq_payments_normalized_reference"
_REFERENCES = (
    f"DROP INDEX {_NORMALIZED}",
    f"CREATE UNIQUE INDEX {_NORMALIZED} ON payments (gateway, payment_method, normalized_reference)",
)
_INBOX = _dropped("webhook_events", "pk_webhook_events", "PRIMARY KEY (gateway, event_id)")
_INDEX = (DROP_INDEX, CREATE_INDEX)
_CHECK = (DROP_CHECK, ADD_CHECK)


class Locks(Enum):
    """What a service has besides: no locks, as by default; leases in Redis; or leases in a Redis that is gone."""

    NONE = "none"
    REDIS = "redis"
    REDIS_GONE = "redis gone"


@dataclass(frozen=True)
class Trial:
    """``through``: what gets through; None where another defence holds."""

    removed: str
    attack: Attack
    through: str | None
    switches: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    locks: Locks = Locks.NONE

    def __str__(self) -> str:
        return f"{self.attack.name} without {self.removed}".replace(" ", "-")


SEVERAL_PAYMENTS = "one consultation has several active payments"
SEVERAL_CONFIRMS = "several confirms of one payment were done"
TOO_MUCH = "more was sent back than came"
ANSWERED = "a link that was revoked was answered"

TRIALS = (
    Trial("the index over active payments, and its readiness check", STORM, SEVERAL_PAYMENTS,
          (PLAIN_INSERT, NO_LOOK), (_INDEX,)),
    Trial("the index alone: the readiness check refuses payments",
          STORM, None, (PLAIN_INSERT, LOOK_EACH_TIME), (_INDEX,)),
    Trial("the index alone, with the insert unchanged: PostgreSQL refuses the statement",
          STORM, None, (NO_LOOK,), (_INDEX,)),
    Trial("the unique key", KEY_REUSE, "one key made several payments", (), (_KEYS,)),
    Trial("the row version", CONFIRMS, SEVERAL_CONFIRMS, (NO_VERSION,)),
    Trial("the row version", CONFIRM_AGAINST_CANCEL, "a payment was confirmed and cancelled at once", (NO_VERSION,)),
    Trial("the row version", REFUNDS, TOO_MUCH, (NO_VERSION,)),
    Trial("the check of the refundable amount, and the CHECK constraint",
          REFUNDS, TOO_MUCH, (NO_BALANCE, NO_LOOK), (_CHECK,)),
    Trial("the check of the refundable amount alone: the CHECK constraint holds", REFUNDS, None, (NO_BALANCE,)),
    Trial("the CHECK constraint alone: the check of the refundable amount and the version hold",
          REFUNDS, None, (NO_LOOK,), (_CHECK,)),
    Trial("the unique transaction", ONE_TRANSACTION, "one transaction paid several payments",
          (), (_TRANSACTIONS, _REFERENCES)),
    Trial("the row version, with locks in Redis: the locks hold", CONFIRMS, None, (NO_VERSION,), locks=Locks.REDIS),
    Trial("the row version, with locks in a Redis that is down", CONFIRMS, SEVERAL_CONFIRMS, (NO_VERSION,),
          locks=Locks.REDIS_GONE),
    Trial("the index and its readiness check, with locks in Redis",
          STORM, SEVERAL_PAYMENTS, (PLAIN_INSERT, NO_LOOK), (_INDEX,),
          Locks.REDIS),
    Trial("the signature of webhooks", FORGED_WEBHOOK, "a forged webhook paid a payment", (NO_SIGNATURE,)),
    Trial("the unique event in the inbox", DOUBLED_WEBHOOK, "one event was processed several times",
          (PLAIN_EVENT,), (_INBOX,)),
    Trial("the check of a payer's link at each request, not that of each change", LINKS, ANSWERED, (NO_LINK_CHECK,)),
    Trial("the check whether a link was revoked", LINKS, "a link that was revoked made a payment", (NO_REVOCATION,)),
    Trial("the unique event in the inbox: the comparison with the payment holds", DOUBLED_MONEY, None,
          (PLAIN_EVENT,), (_INBOX,)),
)  # fmt: skip


@dataclass
class Outcome:
    """What harm was done, by the number of tries that it took; ``tries`` in all."""

    harm: dict[str, int] = field(default_factory=dict)
    tries: int = 0

    def add(self, found: list[Violation]) -> None:
        self.tries += 1
        for breach in found:
            if breach.what not in NO_HARM:
                self.harm.setdefault(breach.what, self.tries)


class Laboratory:
    """A database, and services on it from which defences can be taken."""

    def __init__(self, app: Flask, folder: Path, urls: dict[Locks, str]) -> None:
        self._app = app
        self._folder = folder
        self._urls = urls

    def make(self, trial: Trial) -> Outcome:
        """Attack without the defence, until it is seen what that does; everything is in its place again afterwards."""
        outcome = Outcome()
        with self._without(trial):
            most = TRIES_THAT_FAIL if trial.through is None else TRIES
            while outcome.tries < most and (trial.through is None or trial.through not in outcome.harm):
                outcome.add(self._attack(trial.attack, trial.locks, f"{trial}/{outcome.tries}"))
        return outcome

    def attack_sound_service(self, which: Attack, locks: Locks, tries: int) -> Outcome:
        outcome = Outcome()
        for number in range(tries):
            outcome.add(self._attack(which, locks, f"sound/{number}"))
        self._clear()
        return outcome

    def _attack(self, which: Attack, locks: Locks, seed: str) -> list[Violation]:
        # Nothing is sent again: some weaknesses make every answer ask for it, for ever.
        client = Client(self._urls[locks], at_once=CROWD.clients, patience_seconds=0)
        with self._app.app_context():
            chance = Random(seed)  # noqa: S311  # to be repeated, not to be secret
            scenario = Scenario(*repository.new_round(), client, CROWD, chance)
            found = attack(which, scenario)
        client.close()
        return found

    @contextmanager
    def _without(self, trial: Trial) -> Iterator[None]:
        switches = [self._folder / name for name in trial.switches]
        for switch in switches:
            switch.touch()
        self._execute(drop for drop, _ in trial.dropped)
        try:
            yield
        finally:
            self._clear()
            self._execute(restore for _, restore in trial.dropped)
            for switch in switches:
                switch.unlink()

    def _clear(self) -> None:
        empty(engine_of(self._app))

    def _execute(self, statements: Iterator[str]) -> None:
        with engine_of(self._app).begin() as connection:
            for statement in statements:
                connection.execute(text(statement))


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    folder = Path(tempfile.mkdtemp(prefix="payments-defences-"))
    redis = RedisServer()
    # A lease outlasts any request, however busy the machine is: the trials tell what a lease does, not how long one is.
    leases = {"PAYMENT_LOCKING": "redis", "PAYMENT_LOCK_RETRY_DELAY": "10", "PAYMENT_LOCK_TIMEOUT": "60"}
    gone = {"REDIS_URL": "redis://127.0.0.1:9/0"}
    try:
        with (
            fresh_database("postgresql") as database,
            app_with(database.url) as app,
            _service(database.url, folder) as plain,
            _service(database.url, folder, **leases, **redis.settings) as leasing,
            # One of its own: another would go on without its Redis for a while after that is back.
            _service(database.url, folder, **leases, **gone) as without,
        ):
            yield Laboratory(app, folder, {Locks.NONE: plain, Locks.REDIS: leasing, Locks.REDIS_GONE: without})
    finally:
        redis.close()
        shutil.rmtree(folder)


@contextmanager
def _service(database_url: str, folder: Path, **more: str) -> Iterator[str]:
    """A gunicorn of two workers, forked from a process that has imported everything already."""
    port = free_port()
    settings = testing(database_url, PORT=str(port), WEB_CONCURRENCY="2", LOG_LEVEL="ERROR", **STRIPE, **more)
    log = folder / f"log-{secrets.token_hex(4)}"
    processes = multiprocessing.get_context("forkserver")
    process = processes.Process(target=weaknesses.serve, args=(settings, folder, str(log)))
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url, log)
        yield url
    finally:
        process.terminate()
        process.join(PATIENCE_SECONDS)
        process.close()


def _wait_until_it_answers(url: str, log: Path) -> None:
    def answers() -> bool:
        try:
            # Closed: a connection that idles would keep a worker that is to stop waiting for more.
            urllib3.request("GET", f"{url}/healthz", headers={"Connection": "close"}, retries=False)
        except HTTPError:
            return False
        return True

    wait_until(answers, log.read_text)

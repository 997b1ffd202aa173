"""Clients that repeat a request with the same key until it is answered, and record the responses.

Two clients pay for each consultation, each with its own key. The one that gets the payment confirms it, and staff
refund a part of some payments. All acknowledged changes are recorded, to be compared with the database at the end. If
the service calls a fake Stripe, the patient also opens a checkout and pays there before the confirm.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.support.fake_stripe import FakeStripe
from tests.support.people import PASSWORD, People
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Number of clients: more than one worker has threads, and even, because they come in pairs.
CLIENTS = 12

# Seconds before a request is repeated; on purpose less than Retry-After asks for.
PAUSE_SECONDS = 0.2

# Staff refund a part of one payment in so many.
REFUND_ONE_IN = 3
REFUNDED_MINOR = 100_000

Accepted = Callable[[requests.Response], bool]


@dataclass(frozen=True)
class Acknowledged:
    """A change that the service acknowledged: the status and the ids of the response."""

    key: str
    consultation_id: int
    payment_id: int
    status: int


@dataclass
class Load:
    """The results of all clients' requests."""

    consultations: range
    payments: list[Acknowledged] = field(default_factory=list)
    confirmed: list[Acknowledged] = field(default_factory=list)
    refunds: list[Acknowledged] = field(default_factory=list)
    refused: list[Acknowledged] = field(default_factory=list)  # another client's payment; its id is in the response
    in_vain: list[str] = field(default_factory=list)  # status of each response that asked for a retry, or "no answer"
    logged_in_again: int = 0
    waits: list[float] = field(default_factory=list)  # seconds from a request's first attempt to its final response
    acknowledged_at: list[float] = field(default_factory=list)  # time.monotonic, of each acknowledged change
    strange: list[str] = field(default_factory=list)  # responses that the contract does not allow
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def acknowledged(self) -> int:
        return len(self.payments) + len(self.confirmed) + len(self.refunds)

    @property
    def retried(self) -> int:
        return len(self.in_vain)

    def wait_for_more(self, count: int = 30) -> None:
        """Wait until so many more have been acknowledged."""
        self._wait_for(lambda: self.acknowledged, count)

    def wait_for_retries(self, count: int = CLIENTS) -> None:
        """Wait until so many more requests had to be repeated."""
        self._wait_for(lambda: self.retried, count)

    def _wait_for(self, so_far: Callable[[], int], count: int) -> None:
        """Wait for so many more; a response that is not allowed stops the clients and fails the test at once."""
        enough = so_far() + count
        wait_until(lambda: so_far() >= enough or bool(self.strange), lambda: f"{so_far()} of {enough}")
        assert self.strange == [], self.strange

    def figures(self) -> dict[str, object]:
        return {
            "acknowledged": self.acknowledged,
            "payments": len(self.payments),
            "confirmed": len(self.confirmed),
            "refunds": len(self.refunds),
            "refused": len(self.refused),
            "retried": dict(Counter(self.in_vain)),
            "longest_wait_seconds": round(max(self.waits), 2),
        }


class _Tokens:
    """The clients' tokens. Checking a password costs much processor time, so that one client logs in for all."""

    def __init__(self, people: People) -> None:
        self._tokens = {person.email: person.token for person in (people.patient, people.admin)}
        self._one_logs_in = threading.Lock()

    def of(self, email: str) -> str:
        return self._tokens[email]

    def replace(self, email: str, refused: str, log_in: Callable[[], str | None]) -> None:
        """Log in again, unless another client has since this token was ``refused``; None is no token."""
        with self._one_logs_in:
            if self._tokens[email] == refused:
                self._tokens[email] = log_in() or refused


@dataclass(frozen=True)
class _Paying:
    """How clients pay: at which gateway, and after which pause in seconds."""

    gateway: FakeStripe | None
    pause_seconds: float


class _Client:
    """One client: a thread with its own connection."""

    def __init__(self, url: str, people: People, tokens: _Tokens, load: Load, *, name: str, paying: _Paying) -> None:
        self._url, self._people, self._tokens, self._load, self._name = url, people, tokens, load, name
        self._paying = paying
        self._http = requests.Session()

    def run(self, consultations: Iterator[int]) -> None:
        try:
            with self._http:
                for consultation_id in consultations:
                    if self._load.is_over.wait(self._paying.pause_seconds) or self._load.strange:
                        return
                    self._pay(consultation_id)
        except Exception as error:  # an exception in a thread would not fail the test
            self._load.strange.append(f"{self._name}: {error!r}")
            raise

    def _pay(self, consultation_id: int) -> None:
        key = f"pay-{consultation_id}-{self._name}"
        body = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe"}
        answer = self._until_answered("/payments", body, key, lambda it: it.status_code == 201 or is_duplicate(it))
        payment_id = answer.json()["data"]["payment_id"]
        told = Acknowledged(key, consultation_id, payment_id, answer.status_code)
        if answer.status_code != 201:
            self._load.refused.append(told)
            return
        self._record(self._load.payments, told)
        self._confirm(told)
        if consultation_id % REFUND_ONE_IN == 0:
            self._refund(told)

    def _confirm(self, paid: Acknowledged) -> None:
        key = f"confirm-{paid.payment_id}"
        body = {"transaction_id": self._pay_at_gateway(paid) or f"TXN-{paid.payment_id}"}
        self._until_answered(f"/payments/{paid.payment_id}/confirm", body, key, lambda it: it.status_code == 200)
        self._record(self._load.confirmed, Acknowledged(key, paid.consultation_id, paid.payment_id, 200))

    def _pay_at_gateway(self, paid: Acknowledged) -> str | None:
        """The reference of what the patient has paid at the gateway; None if the service calls no gateway."""
        if (gateway := self._paying.gateway) is None:
            return None
        path, key = f"/payments/{paid.payment_id}/checkout", f"checkout-{paid.payment_id}"
        opened = self._until_answered(path, {}, key, lambda it: it.status_code == 200)
        reference: str = opened.json()["data"]["reference"]
        gateway.pay(reference)
        return reference

    def _refund(self, paid: Acknowledged) -> None:
        # 202: its outcome is not known yet; the service has to find it out.
        key = f"refund-{paid.payment_id}"
        body = {"amount": REFUNDED_MINOR // 100}
        path = f"/payments/{paid.payment_id}/refund"
        answer = self._until_answered(path, body, key, lambda it: it.status_code in (200, 202), staff=True)
        self._record(self._load.refunds, Acknowledged(key, paid.consultation_id, paid.payment_id, answer.status_code))

    def _record(self, acknowledged: list[Acknowledged], change: Acknowledged) -> None:
        self._load.acknowledged_at.append(time.monotonic())
        acknowledged.append(change)

    def _until_answered(
        self, path: str, body: dict[str, Any], key: str, accepted: Accepted, *, staff: bool = False
    ) -> requests.Response:
        """Repeat it with its key until a response is accepted; a response that allows no retry fails the test."""
        email = (self._people.admin if staff else self._people.patient).email
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE_SECONDS:
            token = self._tokens.of(email)
            headers = {"Idempotency-Key": key, "Authorization": f"Bearer {token}"}
            answer = self._send(f"/api/v1{path}", body, headers)
            if answer is not None and accepted(answer):
                self._load.waits.append(time.monotonic() - began)
                return answer
            if answer is not None and answer.status_code == 401:  # a clock jump has ended the token
                self._tokens.replace(email, token, lambda: self._log_in(email))
            elif answer is None or may_be_repeated(answer):
                self._load.in_vain.append("no answer" if answer is None else str(answer.status_code))
                time.sleep(PAUSE_SECONDS)
            else:
                break
        why = "nothing" if answer is None else f"{answer.status_code} {answer.text}"
        raise AssertionError(f"{path} with {key}: {why} after {time.monotonic() - began:.1f} s")

    def _log_in(self, email: str) -> str | None:
        answer = self._send("/api/login", {"email": email, "password": PASSWORD}, {})
        if answer is None or may_be_repeated(answer):
            return None
        assert answer.status_code == 200, answer.text
        self._load.logged_in_again += 1
        token: str = answer.json()["token"]
        return token

    def _send(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> requests.Response | None:
        """None if the response, or a part of it, is lost."""
        try:
            return self._http.post(f"{self._url}{path}", json=body, headers=headers, timeout=PATIENCE_SECONDS)
        except requests.RequestException:
            return None


def is_duplicate(answer: requests.Response) -> bool:
    """Whether the consultation has a payment of another client already."""
    return answer.status_code == 409 and answer.json()["type"] == "/problems/active-payment-exists"


def may_be_repeated(answer: requests.Response) -> bool:
    """Whether the response asks for a retry; it then has to be ``retryable``, and a 503 needs Retry-After."""
    if answer.status_code == 503:
        return int(answer.headers["Retry-After"]) > 0 and answer.json()["retryable"] is True
    return answer.status_code == 409 and answer.json()["retryable"] is True


@contextmanager
def at_work(
    url: str, people: People, consultations: range, *, gateway: FakeStripe | None = None, pause_seconds: float = 0
) -> Iterator[Load]:
    """While the block runs, pairs of clients pay the consultations; at the end each finishes its current one.

    ``pause_seconds``: before each payment of a client.
    """
    load, pairs, tokens = Load(consultations), CLIENTS // 2, _Tokens(people)
    paying = _Paying(gateway, pause_seconds)
    clients = [
        (_Client(url, people, tokens, load, name=f"client-{number}", paying=paying), number % pairs)
        for number in range(CLIENTS)
    ]
    threads = [
        threading.Thread(target=client.run, args=(iter(consultations[pair::pairs]),), daemon=True)
        for client, pair in clients
    ]
    for thread in threads:
        thread.start()
    try:
        load.wait_for_more()
        yield load
        load.wait_for_more()  # the service has recovered
    finally:
        load.is_over.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert load.strange == []

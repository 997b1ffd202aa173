"""Operations on a payment as plain values.

They can be done in another thread, in a process that is killed, or again, as a client without a response does.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from flask import Flask

from payments_app import clock
from payments_app.errors import AppError, PaymentDisputed
from payments_app.payments import expire
from payments_app.payments.models.event import AuditContext
from payments_app.payments.models.status import PaymentStatus
from payments_app.payments.repository import get_status
from payments_app.refunds import repository, service
from tests.support.client import client_of
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_state import PAYABLE
from tests.support.people import Person
from tests.support.steps import Kind, Step, announce


@dataclass(frozen=True)
class OperationResult:
    """The result in a word, and the response body of a request."""

    word: str
    body: str = ""
    # Whether a client would repeat the request.
    ask_again: bool = False

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]


class Operation(Protocol):
    def do(self, app: Flask) -> OperationResult:
        """Do it with this app."""


@dataclass(frozen=True)
class Request:
    """A request of a client."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    method: str = "POST"

    def do(self, app: Flask) -> OperationResult:
        return self._ask(app, self.headers)

    def _ask(self, app: Flask, headers: tuple[tuple[str, str], ...]) -> OperationResult:
        answer = client_of(app).open(f"/api/v1{self.path}", method=self.method, data=self.body, headers=list(headers))
        said = answer.get_json() if answer.data else {}
        kind = said["type"].rpartition("/")[2] if "type" in said else "replayed" if _is_replay(answer.headers) else ""
        # A client repeats the request for an open refund too: 202 with Retry-After.
        again = said.get("retryable", False) or answer.status_code in (202, 503)
        return OperationResult(f"{answer.status_code} {kind}".strip(), answer.get_data(as_text=True), ask_again=again)


def _is_replay(headers: Any) -> bool:
    return "Idempotent-Replayed" in headers


@dataclass(frozen=True)
class Webhook(Request):
    """An event of Stripe's, signed anew each time it is sent."""

    def do(self, app: Flask) -> OperationResult:
        return self._ask(app, (("Stripe-Signature", FakeStripe.sign(self.body)),))


@dataclass(frozen=True)
class PayMongoWebhook(Request):
    """An event of PayMongo's, signed anew each time it is sent."""

    fake: FakePayMongo = field(kw_only=True)

    def do(self, app: Flask) -> OperationResult:
        signature = self.fake.sign(self.body)
        return self._ask(app, (("Content-Type", "application/json"), ("Paymongo-Signature", signature)))


@dataclass(frozen=True)
class Resume:
    """Resumes one refund as the timer does; does nothing if another process holds its lease."""

    refund_id: int
    lease_seconds: int = 600

    def do(self, app: Flask) -> OperationResult:
        with app.app_context():
            try:
                service.resume(self.refund_id, lease_seconds=self.lease_seconds, context=_context())
            except PaymentDisputed as error:
                return OperationResult(error.code)  # until the dispute is won, it is not sent
            except AppError as error:
                return OperationResult(error.code, ask_again=True)
        return OperationResult("resumed")  # by this or by another process


@dataclass(frozen=True)
class SendAgain:
    """Sends one refund again as staff do who saw that the gateway never made it, until that is done."""

    refund_id: int
    lease_seconds: int = 600

    def do(self, app: Flask) -> OperationResult:
        with app.app_context():
            try:
                mine = service.send_again(self.refund_id, lease_seconds=self.lease_seconds, context=_context())
            except AppError as error:
                return OperationResult(error.code, ask_again=True)
            is_open = repository.get(self.refund_id).settled_at is None
        # Another process may be at work on it, which does not send it.
        return OperationResult("sent again", ask_again=mine is None and is_open)


@dataclass(frozen=True)
class Expire:
    """Expires one payment as the timer does."""

    payment_id: int

    def do(self, app: Flask) -> OperationResult:
        with app.app_context():
            return OperationResult(expire.expire(self.payment_id, _context()).value)


@dataclass(frozen=True)
class ExpireInTheEnd(Expire):
    """Expires one payment as the timer does, again in its next run if another session was opened meanwhile.

    For gateways whose sessions have no end: a session with one would keep the payment pending until then.
    """

    def do(self, app: Flask) -> OperationResult:
        result = super().do(app)
        with app.app_context():
            is_pending = get_status(self.payment_id) == PaymentStatus.PENDING
        return replace(result, ask_again=is_pending)


@dataclass(frozen=True)
class PayAtStripe:
    """Pays in Stripe's own form as the patient does; does nothing if the intent can no longer be paid."""

    fake: FakeStripe
    intent: str

    def do(self, app: Flask) -> OperationResult:
        announce(Step(Kind.CALL, "the patient pays"))
        with self.fake._lock:
            if self.fake.intents[self.intent]["status"] not in PAYABLE:
                return OperationResult("too late")
            self.fake.pay(self.intent)
        return OperationResult("paid")


@dataclass(frozen=True)
class PayAtPayMongo:
    """Pays on PayMongo's page as the patient does; does nothing if the session can no longer be paid."""

    fake: FakePayMongo
    session_id: str
    # The payment's id, so that it is the same in each run.
    payment_id: str = "pay_" + 24 * "a"

    def do(self, app: Flask) -> OperationResult:
        announce(Step(Kind.CALL, "the patient pays"))
        with self.fake._lock:
            if not self.fake.can_be_paid(self.session_id):
                return OperationResult("too late")
            self.fake.pay(self.session_id, payment_id=self.payment_id)
        return OperationResult("paid")


def _context() -> AuditContext:
    return AuditContext("system:test", None, clock.now())


def ask(person: Person, path: str, key: str | None = None, **body: Any) -> Request:
    headers = {**person.authorization, "Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return Request(path, json.dumps(body).encode(), tuple(headers.items()))


def create(person: Person, consultation_id: int, key: str, method: str = "stripe") -> Request:
    return ask(person, "/payments", key, consultation_id=consultation_id, amount=5000, payment_method=method)


def confirm(person: Person, payment_id: int, transaction_id: str, key: str) -> Request:
    return ask(person, f"/payments/{payment_id}/confirm", key, transaction_id=transaction_id)


def cancel(person: Person, payment_id: int, key: str) -> Request:
    return ask(person, f"/payments/{payment_id}/cancel", key)


def checkout(person: Person, payment_id: int, key: str) -> Request:
    return ask(person, f"/payments/{payment_id}/checkout", key)


def refresh(person: Person, payment_id: int) -> Request:
    return ask(person, f"/payments/{payment_id}/refresh")


def close(person: Person, consultation_id: int) -> Request:
    return ask(person, f"/consultations/{consultation_id}/close")


def revoke(person: Person, consultation_id: int, link_id: int) -> Request:
    """Revoke a payment link."""
    return replace(ask(person, f"/consultations/{consultation_id}/links/{link_id}"), method="DELETE")


def refund(person: Person, payment_id: int, amount: int, key: str) -> Request:
    return ask(person, f"/payments/{payment_id}/refund", key, amount=amount)


def approve(person: Person, refund_id: int, key: str) -> Request:
    return ask(person, f"/refunds/{refund_id}/approve", key)


def reject(person: Person, refund_id: int, key: str) -> Request:
    return ask(person, f"/refunds/{refund_id}/reject", key, reason="not agreed")


def settle(person: Person, refund_id: int, reference: str, key: str) -> Request:
    """Record that the money of a refund by hand was sent."""
    return ask(person, f"/refunds/{refund_id}/settle", key, reference=reference)


def webhook(event: dict[str, Any]) -> Webhook:
    return Webhook("/webhooks/stripe", json.dumps(event).encode(), ())


def paymongo_webhook(fake: FakePayMongo, event: dict[str, Any]) -> PayMongoWebhook:
    return PayMongoWebhook("/webhooks/paymongo", json.dumps(event).encode(), (), fake=fake)

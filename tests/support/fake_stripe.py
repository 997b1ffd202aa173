"""A fake of the part of Stripe that the service uses, over real HTTP; tests can inspect it and make it fail."""

import hashlib
import hmac
import json
import secrets
import socket
import time
from copy import deepcopy
from dataclasses import replace
from typing import Any

import requests

from tests.support.fake_gateway import Books, FakeGateway, Mode, Trouble
from tests.support.fake_stripe_checkout import page_of
from tests.support.fake_stripe_http import FakeResponse, Received, gone
from tests.support.fake_stripe_state import CARD_DECLINED, Account, Refusal, Wire
from tests.support.waiting import PATIENCE_SECONDS

API_VERSION = "2026-10-28.endive"

OTHER_PARAMETERS = (
    "Keys for idempotent requests can only be used with the same parameters they were first used with. "
    "Try using a key other than '{}' if you meant to execute a different request."
)

# Intents, sessions, charges, refunds, the responses that are stored under keys, and disputes.
Memory = tuple[
    dict[str, Wire],
    dict[str, Wire],
    dict[str, Wire],
    dict[str, Wire],
    dict[str, tuple[Received, FakeResponse]],
    dict[str, Wire],
]

HTML = {"Content-Type": "text/html; charset=utf-8"}


class FakeStripe(Account, FakeGateway):
    """Stripe for one merchant.

    It stores responses under their idempotency keys as Stripe does: errors too, once the endpoint has read the object.
    A request is applied once however often it is sent, and the same key gets a lost response later.

    The SDK repeats a request, after half a second or more and under the same key, if the connection broke or the
    response was 409 or 5xx. To lose the response each time, call ``misbehave`` with ``times=None``.
    """

    api_key = "sk_test_fake"
    webhook_secret = "whsec_fake"
    # The service that is told what happens on the pages of Checkout Sessions; None: tests deliver by themselves.
    webhooks_to: str | None = None
    _answers: dict[str, tuple[Received, FakeResponse]]

    def __init__(self) -> None:
        self._forget_objects()
        super().__init__()

    def set_clock_ahead(self, seconds: int) -> None:
        """Set its clock ahead by so many seconds; below 0, behind."""
        self._server.clock_ahead_seconds = seconds

    def reset(self) -> None:
        """Forget all objects and requests, behave, and release what hangs."""
        self.set_clock_ahead(0)
        with self._lock:
            self._forget_objects()
            self._forget_requests()
            self.release()

    def remember(self) -> Memory:
        """A copy of its objects and keys, for ``recall``."""
        with self._lock:
            known = (self.intents, self.sessions, self.charges, self.refunds, self._answers, self.disputes)
            return deepcopy(known)

    def recall(self, memory: Memory) -> None:
        """Restore a copy; requests since then are forgotten."""
        self.reset()
        with self._lock:
            self.intents, self.sessions, self.charges, self.refunds, self._answers, self.disputes = deepcopy(memory)

    def books(self) -> Books:
        """Without what can no longer be paid: cancelled intents, and sessions that expired."""
        with self._lock:
            intents = [each["status"] for each in self.intents.values() if each["status"] != "canceled"]
            sessions = [f"session {each['status']}" for each in self.sessions.values() if each["status"] != "expired"]
            returned = {refund_id: (each["amount"], each["status"]) for refund_id, each in self.refunds.items()}
            return Books(sorted([*intents, *sessions]), returned)

    def _forget_requests(self) -> None:
        super()._forget_requests()
        self._answers = {}

    def forget_keys(self) -> None:
        """As Stripe does after a day: the same key is then another request."""
        with self._lock:
            self._answers.clear()

    # Misbehaviour.

    def misbehave(
        self,
        mode: Mode,
        *,
        method: str = "POST",
        path: str = "/v1/refunds",
        times: int | None = 1,
        should_retry: bool | None = None,
    ) -> None:
        """Misbehave as any look-alike does; ``should_retry`` is the header Stripe-Should-Retry of a 500.

        Without that header the SDK decides. As long as the client of a ``hang`` waits, its key is in use. What
        ``refuse`` responds is stored under the key. A request whose key was applied before is not applied again: only
        its response is affected.
        """
        self._expect(Trouble(mode, method, path, times, should_retry))

    # Webhooks.

    def event(self, kind: str, obj: Wire, *, event_id: str | None = None, created: int | None = None) -> Wire:
        """Stripe's event about the object as it is now."""
        with self._lock:
            return {
                "id": event_id or f"evt_{secrets.token_hex(12)}",
                "object": "event",
                "api_version": API_VERSION,
                "created": int(time.time()) if created is None else created,
                "data": {"object": deepcopy(obj)},
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            }

    def intent_event(self, kind: str, intent_id: str, **options: Any) -> Wire:
        """``succeeded``, ``processing``, ``payment_failed`` or ``canceled``."""
        return self.event(f"payment_intent.{kind}", self.intents[intent_id], **options)

    def session_event(self, kind: str, session_id: str, **options: Any) -> Wire:
        """``completed``, ``async_payment_succeeded``, ``async_payment_failed`` or ``expired``."""
        with self._lock:
            return self.event(f"checkout.session.{kind}", self._shown(session_id, ()), **options)

    def refund_event(self, kind: str, refund_id: str, **options: Any) -> Wire:
        """``created``, ``updated`` or ``failed``."""
        return self.event(f"refund.{kind}", self.refunds[refund_id], **options)

    def dispute_event(self, kind: str, dispute_id: str, **options: Any) -> Wire:
        """``created``, ``updated``, ``closed``, ``funds_withdrawn`` or ``funds_reinstated``."""
        return self.event(f"charge.dispute.{kind}", self.disputes[dispute_id], **options)

    def charge_refunded(self, intent_id: str, *, with_refunds: bool = False, **options: Any) -> Wire:
        """The event that has only the sum of refunds, or ``with_refunds`` their list, as older API versions do."""
        return self.event("charge.refunded", self.charge_of(intent_id, with_refunds=with_refunds), **options)

    @classmethod
    def sign(cls, body: bytes, *, secret: str | list[str] | None = None, at: float | None = None) -> str:
        """The header Stripe-Signature; with several secrets as during a rotation."""
        stamp = int(time.time() if at is None else at)
        wanted = [secret] if isinstance(secret, str) else secret or [cls.webhook_secret]
        signatures = [hmac.new(each.encode(), b"%d." % stamp + body, hashlib.sha256).hexdigest() for each in wanted]
        return ",".join([f"t={stamp}", *(f"v1={signature}" for signature in signatures)])

    def deliver(
        self, service_url: str, event: Wire, *, secret: str | list[str] | None = None, at: float | None = None
    ) -> requests.Response:
        body = json.dumps(event, indent=2).encode()
        return requests.post(
            f"{service_url}/api/v1/webhooks/stripe",
            data=body,
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": self.sign(body, secret=secret, at=at),
            },
            timeout=PATIENCE_SECONDS,
        )

    # Requests.

    def answer(self, request: Received, authorization: str | None, client: socket.socket) -> FakeResponse | None:
        """The response; None to close the connection without one."""
        if request.path.startswith("/c/pay/"):
            return self._page(request)
        return super().answer(request, authorization, client)

    def _page(self, request: Received) -> FakeResponse:
        """The page of a Checkout Session, which needs no API key: the address is enough."""
        session_id, do = request.path.rpartition("/")[2], request.params.get("do")
        with self._lock:
            self._expire_old()
            session = self.sessions.get(session_id)
            if session is None:
                return FakeResponse(404, b"<!doctype html><title>Checkout</title><h1>Not found</h1>", HTML)
            if request.method != "POST" or session["status"] != "open":
                return FakeResponse(200, page_of(session), HTML)
            intent = self.submit(session_id, str(do))
            if do == "decline":
                events = [self.intent_event("payment_failed", intent["id"])]
                answer = FakeResponse(200, page_of(session, "Your card was declined."), HTML)
            else:
                moved = "processing" if do == "later" else "succeeded"
                events = [self.intent_event(moved, intent["id"]), self.session_event("completed", session_id)]
                answer = FakeResponse(303, b"", {**HTML, "Location": session["success_url"]})
        if self.webhooks_to is not None:
            for event in events:
                self.deliver(self.webhooks_to, event)
        return answer

    def _once(self, request: Received, refusal: Refusal | None = None) -> FakeResponse:
        """Do it, or refuse it, unless a response is stored under its key already."""
        key = request.idempotency_key if request.method == "POST" else None
        if key is None:
            return self._do(request, refusal)[0]
        if key in self._answers:
            first, kept = self._answers[key]
            if first != request:
                return Refusal(400, OTHER_PARAMETERS.format(key), "idempotency_error").answer
            return replace(kept, headers={"Idempotent-Replayed": "true"})
        answer, begun = self._do(request, refusal)
        if begun:
            self._answers[key] = request, answer
        return answer

    def _do(self, request: Received, refusal: Refusal | None) -> tuple[FakeResponse, bool]:
        try:
            if refusal is not None:
                raise refusal
            done = self._perform(request.method, request.path, request.params)
        except Refusal as refused:
            return refused.answer, refused.begun
        return FakeResponse(200, json.dumps(done).encode()), True

    def _check_key(self, request: Received, authorization: str | None) -> None:
        if authorization is None:
            raise Refusal(401, "You did not provide an API key.")
        if authorization != f"Bearer {self.api_key}":
            raise Refusal(401, "Invalid API Key provided.")
        self._check_in_use(request.idempotency_key)

    def _check_in_use(self, key: str | None) -> None:
        # A client that gave up may repeat the request before the serving thread has noticed: its socket shows it.
        if key is not None and any(hanging.key == key and not gone(hanging.client) for hanging in self._hanging):
            message = "There is currently another in-progress request using this Idempotent Key."
            raise Refusal(409, message, code="idempotency_key_in_use")

    def _refuse(self, request: Received) -> FakeResponse:
        if request.path.startswith("/v1/refunds"):
            message = "Charge ch_... has already been refunded."
            return self._once(request, Refusal(400, message, begun=True, code="charge_already_refunded"))
        return self._once(request, Refusal(402, kind="card_error", begun=True, **CARD_DECLINED))

    def _internal_error(self, trouble: Trouble) -> FakeResponse:
        headers = {}
        if trouble.should_retry is not None:
            headers["Stripe-Should-Retry"] = str(trouble.should_retry).lower()
        return replace(Refusal(500, "An unknown error occurred.", "api_error").answer, headers=headers)

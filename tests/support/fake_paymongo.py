"""A look-alike of the part of PayMongo that the service uses, over real HTTP, that tests may look into and upset.

Written from the vendor's pages and from public clients of its API; nothing here was compared with the real one.
"""

import base64
import hashlib
import hmac
import html
import json
import secrets
import threading
import time
from copy import deepcopy
from typing import Any

import requests

from tests.support.fake_gateway import Books, FakeGateway, Refusal, Trouble, Wire
from tests.support.fake_paymongo_state import Account, refusal
from tests.support.fake_stripe_http import FakeResponse, Received
from tests.support.waiting import PATIENCE_SECONDS

# Sessions, payments and refunds.
Memory = tuple[dict[str, Wire], dict[str, Wire], dict[str, Wire]]

PAGE = """<!doctype html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Checkout</title>
<h1>{description}</h1><p>{amount}</p><p role="status">{status}</p>
<form method="post">{buttons}<button name="do" value="fail">Fail</button></form>
<p><a href="{cancel_url}">Leave</a></p></html>"""


class FakePayMongo(Account, FakeGateway):
    """PayMongo for one merchant.

    With a live key, because refunds exist in live mode only. Gateway keys are ignored unless ``remembers_keys``: the
    same request twice is two sessions, or two refunds. With ``webhooks_to``, a service's address, what customers do on
    the page is sent there as events.
    """

    webhook_secret = "whsk_fake"

    def __init__(self, api_key: str = "sk_live_fake") -> None:
        self.api_key = api_key
        self.livemode = api_key.startswith("sk_live_")
        self.reset_state()
        super().__init__()

    @property
    def api_base(self) -> str:
        return f"{self.url}/v1"

    def reset_state(self) -> None:
        self._forget_objects()
        self.remembers_keys = False
        self.webhooks_to: str | None = None
        self._answers: dict[str, tuple[Received, FakeResponse]] = {}

    def reset(self) -> None:
        """Forget everything, behave, and let go of whoever hangs."""
        with self._lock:
            self.reset_state()
            self._forget_requests()
            self.release()

    def remember(self) -> Memory:
        """A copy of its objects, for ``recall``."""
        with self._lock:
            return deepcopy((self.sessions, self.payments, self.refunds))

    def recall(self, memory: Memory) -> None:
        """Restore a copy; requests since then are forgotten."""
        self.reset()
        with self._lock:
            self.sessions, self.payments, self.refunds = deepcopy(memory)

    def books(self) -> Books:
        """Without what can no longer be paid: sessions that ended, and attempts that failed."""
        with self._lock:
            sessions = ["session active" for each in self.sessions if self.can_be_paid(each)]
            statuses = [each["attributes"]["status"] for each in self.payments.values()]
            payments = [f"payment {status}" for status in statuses if status != "failed"]
            made = {refund_id: each["attributes"] for refund_id, each in self.refunds.items()}
            returned = {refund_id: (each["amount"], each["status"]) for refund_id, each in made.items()}
            return Books(sorted([*sessions, *payments]), returned)

    # Webhooks.

    def event(self, kind: str, thing: Wire, *, event_id: str | None = None, created_at: int | None = None) -> Wire:
        """What PayMongo says of the object as it is now."""
        with self._lock:
            attributes = {
                "type": kind,
                "livemode": self.livemode,
                "created_at": int(time.time()) if created_at is None else created_at,
                "data": self.resource(thing),
                "previous_data": {},
            }
            event_id = event_id or f"evt_{secrets.token_hex(12)}"
            return {"data": {"id": event_id, "type": "event", "attributes": attributes}}

    def session_paid(self, session_id: str, **options: Any) -> Wire:
        return self.event("checkout_session.payment.paid", self.sessions[session_id], **options)

    def payment_event(self, kind: str, payment_id: str, **options: Any) -> Wire:
        """``paid``, ``failed`` or ``refunded``."""
        return self.event(f"payment.{kind}", self.payments[payment_id], **options)

    def refund_event(self, kind: str, refund_id: str, **options: Any) -> Wire:
        """By its whole name: ``payment.refund.updated``, or ``refund.succeeded`` of the other generation."""
        return self.event(kind, self.refunds[refund_id], **options)

    def dispute_event(self, kind: str, payment_id: str, **attributes: Any) -> Wire:
        """``created``, ``updated`` or ``resolved``. No page describes its resource."""
        paid = self.payments[payment_id]["attributes"]
        dispute = {
            "id": f"dispute_{payment_id}",
            "type": "dispute",
            "attributes": {"amount": paid["amount"], "currency": "PHP", "payment_id": payment_id, **attributes},
        }
        return self.event(f"dispute.{kind}", dispute)

    def sign(self, body: bytes, *, secret: str | None = None, at: float | None = None, name: str | None = None) -> str:
        """The header Paymongo-Signature: ``te`` in test mode and ``li`` in live mode, the other one empty."""
        stamp = int(time.time() if at is None else at)
        signed = hmac.new((secret or self.webhook_secret).encode(), b"%d." % stamp + body, hashlib.sha256).hexdigest()
        named = {"te": "", "li": "", name or ("li" if self.livemode else "te"): signed}
        return f"t={stamp},te={named['te']},li={named['li']}"

    def deliver(self, service_url: str, event: Wire, **options: Any) -> requests.Response:
        body = json.dumps(event).encode()
        headers = {"Content-Type": "application/json", "Paymongo-Signature": self.sign(body, **options)}
        url = f"{service_url}/api/v1/webhooks/paymongo"
        return requests.post(url, data=body, headers=headers, timeout=PATIENCE_SECONDS)

    # Requests.

    def _once(self, request: Received) -> FakeResponse:
        if request.path.startswith("/checkout/"):
            return self._page(request)
        key = request.idempotency_key if request.method == "POST" and self.remembers_keys else None
        if key is not None and key in self._answers:
            first, kept = self._answers[key]
            if first == request:
                return kept
            return refusal(400, "idempotency_key_mismatch", "This key was used with other parameters.").answer
        try:
            answer = FakeResponse(200, json.dumps(self.perform(request.method, request.path, request.params)).encode())
        except Refusal as refused:
            answer = refused.answer
        if key is not None:
            self._answers[key] = request, answer
        return answer

    def _check_key(self, request: Received, authorization: str | None) -> None:
        wanted = f"Basic {base64.b64encode(f'{self.api_key}:'.encode()).decode()}"
        if authorization != wanted and not request.path.startswith("/checkout/"):
            raise refusal(401, "authentication_failed", f"No such key: {authorization}.")

    def _refuse(self, _request: Received) -> FakeResponse:
        return refusal(400, "insufficient_balance", "The account's balance does not cover this.").answer

    def _internal_error(self, _trouble: Trouble) -> FakeResponse:
        return refusal(500, "internal_server_error", "Something went wrong.").answer

    # The page on which customers pay.

    def _page(self, request: Received) -> FakeResponse:
        session_id = request.path.rpartition("/")[2]
        session = self.sessions.get(session_id)
        if session is None:
            return FakeResponse(404, b"No such checkout.", {"Content-Type": "text/plain"})
        attributes, done = session["attributes"], request.params.get("do")
        if request.method == "POST" and attributes["status"] == "active" and done is not None:
            if done != "fail":
                self._tell(self.session_paid_after(session_id, done))
                return FakeResponse(303, b"", {"Location": attributes.get("success_url", request.path)})
            self._tell(self.payment_event("failed", self.decline(session_id)))
        is_paid = any(each["attributes"]["status"] == "paid" for each in self.payments_of(session_id))
        failed = [each for each in self.payments_of(session_id) if each["attributes"]["status"] == "failed"]
        status = "Paid." if is_paid else "Declined." if failed else attributes["status"]
        buttons = "".join(
            f'<button name="do" value="{kind}">Pay with {kind}</button>' for kind in attributes["payment_method_types"]
        )
        shown = PAGE.format(
            description=html.escape(str(attributes.get("description"))),
            amount=f"PHP {sum(item['amount'] for item in attributes['line_items']) / 100:,.2f}",
            status=status,
            buttons="" if is_paid or attributes["status"] != "active" else buttons,
            cancel_url=html.escape(attributes.get("cancel_url", "#")),
        )
        return FakeResponse(200, shown.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def session_paid_after(self, session_id: str, by: str) -> Wire:
        self.pay(session_id, by)
        return self.session_paid(session_id)

    def _tell(self, event: Wire) -> None:
        """Send it from a thread of its own: the service reads the object again, and this one holds the lock."""
        if self.webhooks_to is not None:
            threading.Thread(target=self.deliver, args=(self.webhooks_to, deepcopy(event)), daemon=True).start()

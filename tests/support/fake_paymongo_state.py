"""What the fake PayMongo knows: sessions, payments and refunds, and what its API, its customers and its staff do.

Where PayMongo's manners are not sure, a switch chooses between them.
"""

import json
import secrets
import time
from collections.abc import Collection
from copy import deepcopy
from typing import Any

from tests.support.fake_gateway import Refusal, Wire
from tests.support.fake_stripe_http import FakeResponse

METHOD_TYPES = ("gcash", "paymaya", "grab_pay", "card", "qrph")
REASONS = ("duplicate", "fraudulent", "requested_by_customer", "others")
SESSION_ATTRIBUTES = (
    "line_items",
    "payment_method_types",
    "reference_number",
    "description",
    "metadata",
    "send_email_receipt",
    "show_description",
    "show_line_items",
    "success_url",
    "cancel_url",
)


def refusal(status: int, code: str, detail: str) -> Refusal:
    """In the shape of PayMongo's errors."""
    body = {"errors": [{"code": code, "detail": detail}]}
    return Refusal(FakeResponse(status, json.dumps(body).encode()))


class Account:
    """Everything at one merchant's PayMongo; of each object the dict that goes over the wire, in order of creation."""

    url: str
    livemode: bool

    def _forget_objects(self) -> None:
        self.sessions: dict[str, Wire] = {}
        self.payments: dict[str, Wire] = {}
        self.refunds: dict[str, Wire] = {}
        # Switches: how a refund begins; which members are left out of answers (``payment.metadata``,
        # ``session.metadata``, ``session.reference_number``, ``refund.metadata``, ``refund.notes``,
        # ``payment.refunds``, ``page.has_more``); what sessions say of themselves, whatever became of them; whether the
        # lists of payments and refunds begin with the oldest; what expiring answers instead of the session.
        self.refunds_start_as = "succeeded"
        self.left_out: set[str] = set()
        self.session_status: str | None = None
        self.lists_oldest_first = False
        self.expire_answer: FakeResponse | None = None

    # What tests look at.

    def payments_of(self, session_id: str) -> list[Wire]:
        """Oldest first."""
        return [self.payments[each] for each in self.sessions[session_id]["attributes"]["payments"]]

    def can_be_paid(self, session_id: str) -> bool:
        """Whether its page takes money now."""
        is_paid = any(each["attributes"]["status"] == "paid" for each in self.payments_of(session_id))
        return self.sessions[session_id]["attributes"]["status"] == "active" and not is_paid

    def paid_by(self, session_id: str) -> str:
        """The id of the payment that paid the session."""
        (paid,) = [each for each in self.payments_of(session_id) if each["attributes"]["status"] != "failed"]
        payment_id: str = paid["id"]
        return payment_id

    def refunds_of(self, payment_id: str) -> list[Wire]:
        """Oldest first."""
        return [each for each in self.refunds.values() if each["attributes"]["payment_id"] == payment_id]

    def refunded_total(self, payment_id: str) -> int:
        """What the customer has got back, or will."""
        amounts = [each["attributes"] for each in self.refunds_of(payment_id)]
        return sum(each["amount"] for each in amounts if each["status"] != "failed")

    # What customers do, and people at the dashboard.

    def pay(self, session_id: str, by: str | None = None, *, late: bool = False, payment_id: str | None = None) -> str:
        """As if the customer had paid: the payment's id, a new one unless it is given.

        ``late``: by a link chosen before the session ended.
        """
        session = self.sessions[session_id]["attributes"]
        assert late or session["status"] == "active", f"nobody can pay a session that is {session['status']}"
        pending = [each for each in self.payments_of(session_id) if each["attributes"]["status"] == "pending"]
        payment = pending[0] if pending else self._new_payment(session_id, by, "paid", payment_id)
        payment["attributes"].update(status="paid", paid_at=int(time.time()))
        return str(payment["id"])

    def start_processing(self, session_id: str, by: str | None = None) -> str:
        """As if the customer's wallet were still at it."""
        return str(self._new_payment(session_id, by, "pending")["id"])

    def decline(self, session_id: str, by: str | None = None) -> str:
        """As if the customer's bank had declined; they may try again."""
        return str(self._new_payment(session_id, by, "failed")["id"])

    def end(self, session_id: str) -> None:
        """As if the session's time were over."""
        self.sessions[session_id]["attributes"]["status"] = "expired"

    def tamper(self, kind: str, object_id: str, **attributes: Any) -> None:
        """Make an object say what it should not."""
        objects: dict[str, Wire] = getattr(self, kind)
        objects[object_id]["attributes"].update(attributes)

    def refund_in_dashboard(self, payment_id: str, amount: int, notes: str | None = None) -> Wire:
        """A refund that the service knows nothing of."""
        attributes = {"amount": amount, "payment_id": payment_id, "reason": "others", "notes": notes}
        return self._create_refund({name: value for name, value in attributes.items() if value is not None})

    def settle_refund(self, refund_id: str, status: str) -> None:
        """Bring a refund to its end. One that had succeeded may fail later, too."""
        refund = self.refunds[refund_id]["attributes"]
        refund["status"] = status
        self._count_refunds(refund["payment_id"])

    # What the API does.

    def perform(self, method: str, path: str, params: Wire) -> Wire:
        attributes = (params.get("data") or {}).get("attributes") or {} if method == "POST" else {}
        match [method, *path.strip("/").split("/")]:
            case ["POST", "v1", "checkout_sessions"]:
                return self._shown(self._create_session(attributes))
            case ["POST", "v1", "checkout_sessions", session_id, "expire"]:
                return self._shown(self._expire_session(session_id))
            case ["POST", "v1", "refunds"]:
                return self._shown(self._create_refund(attributes))
            case ["GET", "v1", "payments" | "refunds" as kind]:
                return self._list(params, getattr(self, kind))
            case ["GET", "v1", "checkout_sessions" | "payments" | "refunds" as kind, object_id]:
                objects: dict[str, Wire] = getattr(self, kind.removeprefix("checkout_"))
                return self._shown(_find(objects, object_id))
        raise refusal(404, "resource_not_found", f"No such route: {method} {path}.")

    def resource(self, thing: Wire) -> Wire:
        """An object as answers and events show it: sessions with their payments, payments with their refunds."""
        shown = deepcopy(thing)
        attributes, kind = shown["attributes"], {"checkout_session": "session"}.get(thing["type"], thing["type"])
        if kind == "session":
            attributes["payments"] = [self.resource(self.payments[each]) for each in attributes["payments"]]
            attributes["status"] = self.session_status or attributes["status"]
        if kind == "payment":
            attributes["refunds"] = [self.resource(each) for each in self.refunds_of(shown["id"])]
        for name in [name for name in attributes if f"{kind}.{name}" in self.left_out]:
            del attributes[name]
        return shown

    def _shown(self, thing: Wire) -> Wire:
        return {"data": self.resource(thing)}

    def _create_session(self, given: Wire) -> Wire:
        _allow(given, SESSION_ATTRIBUTES)
        items = given.get("line_items")
        if not items or not all(_is_amount(item.get("amount")) and item.get("name") for item in items):
            raise refusal(400, "parameter_invalid", "line_items need an amount of 1 or more and a name.")
        if {item.get("currency") for item in items} != {"PHP"}:
            raise refusal(400, "parameter_invalid", "The currency has to be PHP.")
        types = given.get("payment_method_types")
        if not types or not set(types) <= set(METHOD_TYPES):
            raise refusal(400, "parameter_invalid", "payment_method_types has a type that is not known.")
        if not all(isinstance(value, str) for value in (given.get("metadata") or {}).values()):
            raise refusal(400, "parameter_invalid", "metadata is a flat object of texts.")
        session_id = _new_id("cs")
        session = self.sessions[session_id] = {
            "id": session_id,
            "type": "checkout_session",
            "attributes": {
                **given,
                "checkout_url": f"{self.url}/checkout/{session_id}",
                "created_at": int(time.time()),
                "livemode": self.livemode,
                "payments": [],
                "payment_intent": {
                    "id": _new_id("pi"),
                    "type": "payment_intent",
                    "attributes": {"amount": _asked(given), "currency": "PHP", "status": "awaiting_payment_method"},
                },
                "status": "active",
            },
        }
        return session

    def _expire_session(self, session_id: str) -> Wire:
        session = _find(self.sessions, session_id)
        if any(each["attributes"]["status"] == "paid" for each in self.payments_of(session_id)):
            raise refusal(400, "resource_invalid_state", "A session that is paid cannot be expired.")
        if session["attributes"]["status"] == "expired":
            raise refusal(400, "resource_invalid_state", "The session has expired already.")
        session["attributes"]["status"] = "expired"
        if self.expire_answer is not None:
            raise Refusal(self.expire_answer)
        return session

    def _create_refund(self, given: Wire) -> Wire:
        _allow(given, ("amount", "payment_id", "reason", "notes", "metadata"))
        payment = _find(self.payments, str(given.get("payment_id")))
        paid = payment["attributes"]
        left = paid["amount"] - self.refunded_total(payment["id"])
        if not self.livemode:
            raise refusal(400, "resource_not_allowed", "Refunds exist in live mode only.")
        if paid["source"]["type"] == "qrph":
            raise refusal(400, "resource_not_allowed", "Payments by QR Ph cannot be refunded.")
        if paid["status"] not in ("paid", "partially_refunded"):
            raise refusal(400, "resource_invalid_state", f"A payment that is {paid['status']} cannot be refunded.")
        if given.get("reason") not in REASONS:
            raise refusal(400, "parameter_invalid", "reason has a value that is not known.")
        if not _is_amount(given.get("amount")) or given["amount"] > left:
            raise refusal(400, "parameter_above_maximum", f"The amount is greater than what is left: {left}.")
        refund_id = _new_id("ref")
        refund = self.refunds[refund_id] = {
            "id": refund_id,
            "type": "refund",
            "attributes": {
                "metadata": None,
                "notes": None,
                **given,
                "created_at": int(time.time()),
                "currency": "PHP",
                "livemode": self.livemode,
                "status": self.refunds_start_as,
            },
        }
        self._count_refunds(payment["id"])
        return refund

    def _list(self, params: Wire, objects: dict[str, Wire]) -> Wire:
        _allow(params, ("limit", "after"))
        limit = int(params.get("limit", 10))
        if not 0 < limit <= 100:
            raise refusal(400, "parameter_invalid", "limit has to be from 1 to 100.")
        found = sorted(objects.values(), key=lambda each: each["attributes"]["created_at"])
        if not self.lists_oldest_first:
            found.reverse()
        if "after" in params:
            ids = [each["id"] for each in found]
            _find(objects, params["after"])
            found = found[ids.index(params["after"]) + 1 :]
        page: Wire = {"data": [self.resource(each) for each in found[:limit]]}
        if "page.has_more" not in self.left_out:
            page["has_more"] = len(found) > limit
        return page

    def _new_payment(self, session_id: str, by: str | None, status: str, payment_id: str | None = None) -> Wire:
        session = self.sessions[session_id]["attributes"]
        payment_id = payment_id or _new_id("pay")
        payment = self.payments[payment_id] = {
            "id": payment_id,
            "type": "payment",
            "attributes": {
                "amount": _asked(session),
                "created_at": int(time.time()),
                "currency": "PHP",
                "livemode": self.livemode,
                "metadata": dict(session.get("metadata") or {}),
                "paid_at": int(time.time()) if status == "paid" else None,
                "payment_intent_id": session["payment_intent"]["id"],
                "source": {"id": _new_id("src"), "type": by or session["payment_method_types"][0]},
                "status": status,
            },
        }
        session["payments"].append(payment_id)
        return payment

    def _count_refunds(self, payment_id: str) -> None:
        payment = self.payments[payment_id]["attributes"]
        total = self.refunded_total(payment_id)
        payment["status"] = "refunded" if total == payment["amount"] else "partially_refunded" if total else "paid"


def _asked(session: Wire) -> int:
    return sum(item["amount"] * item.get("quantity", 1) for item in session["line_items"])


def _is_amount(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _find(objects: dict[str, Wire], object_id: str) -> Wire:
    if object_id not in objects:
        raise refusal(404, "resource_not_found", f"No such resource with id '{object_id}'.")
    return objects[object_id]


def _allow(given: Wire, known: Collection[str]) -> None:
    """Refuse what PayMongo may know and this fake does not, so that no test passes because it was overlooked."""
    for name in given:
        if name not in known:
            raise refusal(400, "parameter_unknown", f"{name} is not known.")

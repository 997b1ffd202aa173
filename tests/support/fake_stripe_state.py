"""The objects of the fake Stripe (intents, charges, refunds), and the operations of its API and dashboard."""

import json
import math
import secrets
import threading
import time
from collections.abc import Collection
from copy import deepcopy
from typing import Any

from tests.support.fake_gateway import Refusal as RefusalOfGateway
from tests.support.fake_stripe_checkout import KNOWN, Refused, new_session, shown
from tests.support.fake_stripe_http import FakeResponse

Wire = dict[str, Any]

CANCELLABLE = ("requires_payment_method", "requires_confirmation", "requires_action", "requires_capture")
PAYABLE = ("requires_payment_method", "requires_confirmation", "requires_action", "processing")
GIVEN_BACK = ("failed", "canceled")
CANCELLATION_REASONS = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
CARD_DECLINED = {"code": "card_declined", "decline_code": "generic_decline", "message": "Your card was declined."}


class Refusal(RefusalOfGateway):
    """A response in the shape of Stripe's errors.

    Stripe stores a response under its idempotency key once the endpoint has ``begun``: not if the parameters are
    invalid or name an object that does not exist.
    """

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", *, begun: bool = False, **more: Any
    ) -> None:
        body = {"error": {"type": kind, "message": message, **more}}
        super().__init__(FakeResponse(status, json.dumps(body).encode()))
        self.begun = begun


class Account:
    """All objects of one merchant, each as the dict that is sent, in order of creation."""

    url: str
    _lock: threading.Condition

    def _forget_objects(self) -> None:
        self.intents: dict[str, Wire] = {}
        self.sessions: dict[str, Wire] = {}
        self.charges: dict[str, Wire] = {}
        self.refunds: dict[str, Wire] = {}
        self.disputes: dict[str, Wire] = {}
        self.refunds_start_as = "succeeded"

    # For tests to read.

    def refunds_of(self, intent_id: str) -> list[Wire]:
        """Oldest first."""
        with self._lock:
            return [refund for refund in self.refunds.values() if refund["payment_intent"] == intent_id]

    def refunded_total(self, intent_id: str) -> int:
        """The amount that the customer has got back, or will get back."""
        return sum(refund["amount"] for refund in self.refunds_of(intent_id) if refund["status"] not in GIVEN_BACK)

    def lost_total(self, intent_id: str) -> int:
        """What the customer's bank has taken back for good."""
        with self._lock:
            theirs = [each for each in self.disputes.values() if each["payment_intent"] == intent_id]
            return sum(dispute["amount"] for dispute in theirs if dispute["status"] == "lost")

    # Actions of customers on the page of a Checkout Session.

    def submit(self, session_id: str, do: str = "pay") -> Wire:
        """As if the customer had sent the form: ``pay``, ``decline``, or ``later`` for money that takes days.

        The intent is made by the first time. The session's PaymentIntent.
        """
        with self._lock:
            self._expire_old()
            session = self.sessions[session_id]
            assert session["status"] == "open", f"nobody can pay by a session that is {session['status']}"
            if session["payment_intent"] is None:
                wanted = {"amount": str(session["amount_total"]), "currency": session["currency"]}
                intent = self._create_intent({**wanted, "metadata": session["_intent_metadata"]})
                session["payment_intent"] = intent["id"]
            intent_id: str = session["payment_intent"]
            if do == "decline":
                self.decline(intent_id)
            elif do == "later":
                self.start_processing(intent_id)
                session.update(status="complete", url=None)
            else:
                self.pay(intent_id)
                session.update(status="complete", url=None, payment_status="paid")
            return self.intents[intent_id]

    def finish(self, session_id: str, *, paid: bool) -> None:
        """As if money that takes days had come, or not."""
        with self._lock:
            session = self.sessions[session_id]
            if paid:
                self.pay(session["payment_intent"])
                session["payment_status"] = "paid"
            else:
                self.decline(session["payment_intent"])

    def pass_expiry(self, session_id: str) -> None:
        """As if its time were over."""
        with self._lock:
            self.sessions[session_id]["expires_at"] = int(time.time()) - 1
            self._expire_old()

    def _expire_old(self) -> None:
        for session in self.sessions.values():
            if session["status"] == "open" and session["expires_at"] <= time.time():
                session.update(status="expired", url=None)

    # Actions of customers, and of staff at the dashboard.

    def pay(self, intent_id: str) -> None:
        """As if the customer had paid."""
        with self._lock:
            intent = self.intents[intent_id]
            assert intent["status"] in PAYABLE, f"nobody can pay an intent that is {intent['status']}"
            self._charge(intent, "succeeded")
            intent.update(status="succeeded", amount_received=intent["amount"], last_payment_error=None)

    def start_processing(self, intent_id: str) -> None:
        """As if the customer had paid by a method that takes days."""
        with self._lock:
            self.intents[intent_id]["status"] = "processing"

    def decline(self, intent_id: str) -> None:
        """As if the customer's bank had declined; they may try again."""
        with self._lock:
            intent = self.intents[intent_id]
            assert intent["status"] in PAYABLE, f"nobody can decline an intent that is {intent['status']}"
            # A failed attempt is a charge as well: that an intent has one does not mean it was paid.
            charge = self._charge(intent, "failed")
            error = {"type": "card_error", "charge": charge["id"], **CARD_DECLINED}
            intent.update(status="requires_payment_method", last_payment_error=error)

    def cancel(self, intent_id: str) -> None:
        with self._lock:
            self._cancel_intent(intent_id, {})

    def tamper(self, intent_id: str, **fields: Any) -> None:
        """Change fields of an intent: to another amount, currency or metadata."""
        with self._lock:
            self.intents[intent_id].update(fields)

    def refund_in_dashboard(self, intent_id: str, amount: int) -> Wire:
        """A refund that the service does not know: its metadata are empty."""
        with self._lock:
            return self._create_refund({"payment_intent": intent_id, "amount": str(amount)})

    def settle_refund(self, refund_id: str, status: str) -> None:
        """Set the final status of a refund. A bank may return even one that had succeeded."""
        with self._lock:
            refund = self.refunds[refund_id]
            refund.update(status=status, failure_reason="expired_or_canceled_card" if status == "failed" else None)
            self._count_refunds(self.charges[refund["charge"]])

    def dispute(self, intent_id: str, amount: int | None = None, *, status: str = "needs_response") -> str:
        """As if the customer's bank had asked for the money, or with ``warning_needs_response`` only about it; its id.

        Stripe refuses to refund a charge that is disputed. Here it is let through: the service has to see to that.
        """
        with self._lock:
            charge = self.charges[self.intents[intent_id]["latest_charge"]]
            dispute_id = _new_id("du")
            self.disputes[dispute_id] = {
                "id": dispute_id,
                "object": "dispute",
                "amount": charge["amount"] if amount is None else amount,
                "charge": charge["id"],
                "created": int(time.time()),
                "currency": charge["currency"],
                "evidence_details": {"due_by": int(time.time()) + 7 * 86_400, "has_evidence": False},
                "is_charge_refundable": status.startswith("warning_"),
                "livemode": False,
                "metadata": {},
                "payment_intent": intent_id,
                "reason": "fraudulent",
                "status": status,
            }
            return dispute_id

    def move_dispute(self, dispute_id: str, status: str, **fields: Any) -> None:
        """The clinic has answered (``under_review``), or the bank decides: ``won``, ``lost``, ``warning_closed``."""
        with self._lock:
            self.disputes[dispute_id].update(status=status, **fields)

    def charge_of(self, intent_id: str, *, with_refunds: bool = False) -> Wire:
        """A copy of the intent's latest charge; with the list of its refunds, as API versions before 2022-11-15."""
        with self._lock:
            charge = deepcopy(self.charges[self.intents[intent_id]["latest_charge"]])
            if with_refunds:
                refunds = deepcopy(self.refunds_of(intent_id))[::-1]
                charge["refunds"] = _list(f"/v1/charges/{charge['id']}/refunds", refunds, has_more=False)
            return charge

    # Operations of the API. The lock is held.

    def _perform(self, method: str, path: str, params: Wire) -> Wire:  # noqa: PLR0911  # one for each operation
        match [method, *path.strip("/").split("/")]:
            case [_, "v1", "checkout", "sessions", *which]:
                return self._perform_checkout(method, which, params)
            case ["POST", "v1", "payment_intents"]:
                return self._create_intent(params)
            case ["GET", "v1", "payment_intents", intent_id]:
                _allow(params, ())
                return _find(self.intents, "payment_intent", intent_id, "intent")
            case ["POST", "v1", "payment_intents", intent_id, "cancel"]:
                return self._cancel_intent(intent_id, params)
            case ["GET", "v1", "charges"]:
                return self._list(params, "charges", list(self.charges.values()))
            case ["GET", "v1", "charges", charge_id]:
                _allow(params, ())
                return _find(self.charges, "charge", charge_id, "id")
            case ["POST", "v1", "refunds"]:
                return self._create_refund(params)
            case ["GET", "v1", "refunds"]:
                return self._list_refunds(params)
            case ["GET", "v1", "refunds", refund_id]:
                _allow(params, ())
                return _find(self.refunds, "refund", refund_id, "id")
        raise Refusal(404, f"Unrecognized request URL ({method}: {path}).")

    def _perform_checkout(self, method: str, which: list[str], params: Wire) -> Wire:
        match [method, *which]:
            case ["POST"]:
                return self._create_session(params)
            case ["GET", session_id]:
                _allow(params, ("expand",))
                return self._shown(session_id, (params.get("expand") or {}).values())
            case ["POST", session_id, "expire"]:
                return self._end_session(session_id, params)
        raise Refusal(404, f"Unrecognized request URL ({method}: checkout sessions).")

    def _create_session(self, params: Wire) -> Wire:
        _allow(params, KNOWN)
        try:
            session = new_session(params, page=self.url, metadata=_metadata)
        except Refused as refused:
            raise Refusal(400, refused.message, param=refused.param) from None
        self.sessions[session["id"]] = session
        return self._shown(session["id"], ())

    def _shown(self, session_id: str, expand: Collection[str]) -> Wire:
        self._expire_old()
        return shown(_find(self.sessions, "checkout.session", session_id, "session"), expand, self.intents)

    def _end_session(self, session_id: str, params: Wire) -> Wire:
        _allow(params, ())
        self._expire_old()
        session = _find(self.sessions, "checkout.session", session_id, "session")
        if session["status"] != "open":
            message = f"Only an open Checkout Session can be expired; this one is {session['status']}."
            raise Refusal(400, message, begun=True)
        session.update(status="expired", url=None)
        if session["payment_intent"] is not None:
            self._cancel_intent(session["payment_intent"], {})
        return self._shown(session_id, ())

    def _create_intent(self, params: Wire) -> Wire:
        _allow(params, ("amount", "currency", "metadata", "automatic_payment_methods", "description"))
        intent_id = _new_id("pi")
        intent = self.intents[intent_id] = {
            "id": intent_id,
            "object": "payment_intent",
            "amount": _positive(params, "amount"),
            "amount_received": 0,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "always"},
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{intent_id}_secret_{secrets.token_hex(8)}",
            "created": int(time.time()),
            "currency": str(_required(params, "currency")).lower(),
            "description": params.get("description"),
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": _metadata(params),
            "next_action": None,
            "payment_method": None,
            "payment_method_types": ["card"],
            "status": "requires_payment_method",
        }
        return intent

    def _cancel_intent(self, intent_id: str, params: Wire) -> Wire:
        _allow(params, ("cancellation_reason",))
        reason = _one_of(params, "cancellation_reason", CANCELLATION_REASONS)
        intent = _find(self.intents, "payment_intent", intent_id, "intent")
        # Stripe cancels one that is processing "in rare cases"; here it never does.
        if intent["status"] not in CANCELLABLE:
            message = f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}."
            code = "payment_intent_unexpected_state"
            raise Refusal(400, message, begun=True, code=code, payment_intent=deepcopy(intent))
        intent.update(status="canceled", canceled_at=int(time.time()), cancellation_reason=reason)
        return intent

    def _create_refund(self, params: Wire) -> Wire:
        _allow(params, ("payment_intent", "amount", "metadata", "reason"))
        intent = _find(self.intents, "payment_intent", _required(params, "payment_intent"), "payment_intent")
        reason = _one_of(params, "reason", REFUND_REASONS)
        asked = _positive(params, "amount") if "amount" in params else None
        if intent["status"] != "succeeded":
            message = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise Refusal(400, message, begun=True, param="payment_intent")
        charge = self.charges[intent["latest_charge"]]
        amount = _refundable(charge, asked)
        refund_id = _new_id("re")
        refund = self.refunds[refund_id] = {
            "id": refund_id,
            "object": "refund",
            "amount": amount,
            "charge": charge["id"],
            "created": int(time.time()),
            "currency": charge["currency"],
            "failure_reason": None,
            "metadata": _metadata(params),
            "payment_intent": intent["id"],
            "reason": reason,
            "status": self.refunds_start_as,
        }
        self._count_refunds(charge)
        return refund

    def _list_refunds(self, params: Wire) -> Wire:
        found = list(self.refunds.values())
        if "payment_intent" in params:
            intent = _find(self.intents, "payment_intent", params["payment_intent"], "payment_intent")
            found = self.refunds_of(intent["id"])
        return self._list({name: params[name] for name in params if name != "payment_intent"}, "refunds", found)

    def _list(self, params: Wire, kind: str, found: list[Wire]) -> Wire:
        """A page of these objects, newest first."""
        _allow(params, ("created", "limit", "starting_after"))
        limit = _positive(params, "limit") if "limit" in params else 10
        if limit > 100:
            raise Refusal(400, "This value must be less than or equal to 100.", param="limit")
        created = {name: _positive(params["created"], name) for name in params.get("created", {})}
        _allow(created, ("gte", "lt"))
        found = [each for each in found if created.get("gte", 0) <= each["created"] < created.get("lt", math.inf)]
        found.sort(key=lambda each: each["created"])
        found.reverse()
        if "starting_after" in params:
            objects: dict[str, Wire] = getattr(self, kind)
            last_seen = _find(objects, kind.removesuffix("s"), params["starting_after"], "starting_after")
            found = found[found.index(last_seen) + 1 :] if last_seen in found else []
        return _list(f"/v1/{kind}", found[:limit], has_more=len(found) > limit)

    def _charge(self, intent: Wire, status: str) -> Wire:
        charge_id = _new_id("ch")
        paid = status == "succeeded"
        charge = self.charges[charge_id] = {
            "id": charge_id,
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": intent["amount"] if paid else 0,
            "amount_refunded": 0,
            "captured": paid,
            "created": int(time.time()),
            "currency": intent["currency"],
            "failure_code": None if paid else CARD_DECLINED["code"],
            "livemode": False,
            "metadata": dict(intent["metadata"]),
            "paid": paid,
            "payment_intent": intent["id"],
            "refunded": False,
            "status": status,
        }
        intent["latest_charge"] = charge_id
        return charge

    def _count_refunds(self, charge: Wire) -> None:
        total = self.refunded_total(charge["payment_intent"])
        charge.update(amount_refunded=total, refunded=total == charge["amount"])


def _refundable(charge: Wire, asked: int | None) -> int:
    """The amount to refund: the one that is asked for, or else all that is left."""
    left: int = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise Refusal(400, message, begun=True, code="charge_already_refunded")
    if asked is not None and asked > left:
        # Stripe gives no code with this one.
        message = f"Refund amount ({asked / 100:.2f}) is greater than unrefunded amount on charge ({left / 100:.2f})"
        raise Refusal(400, message, begun=True, param="amount")
    return asked or left


def _list(url: str, data: list[Wire], *, has_more: bool) -> Wire:
    return {"object": "list", "url": url, "has_more": has_more, "data": data}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _find(objects: dict[str, Wire], kind: str, object_id: str, param: str) -> Wire:
    if object_id not in objects:
        raise Refusal(404, f"No such {kind}: '{object_id}'", code="resource_missing", param=param)
    return objects[object_id]


def _allow(params: Wire, known: Collection[str]) -> None:
    """Refuse parameters that this fake does not support, so that no test passes because one was ignored."""
    for name in params:
        if name not in known:
            raise Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def _required(params: Wire, name: str) -> Any:
    if not params.get(name):
        raise Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return params[name]


def _positive(params: Wire, name: str) -> int:
    value = str(_required(params, name))
    if not value.isdecimal() or int(value) == 0:
        raise Refusal(400, "Invalid positive integer", code="parameter_invalid_integer", param=name)
    return int(value)


def _one_of(params: Wire, name: str, known: Collection[str]) -> str | None:
    value: str | None = params.get(name)
    if value is not None and value not in known:
        raise Refusal(400, f"Invalid {name}: must be one of {', '.join(known)}", param=name)
    return value


def _metadata(params: Wire) -> dict[str, str]:
    """Metadata without empty values: Stripe removes a key whose value is empty."""
    metadata = params.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Refusal(400, "Invalid hash", param="metadata")
    return {name: value for name, value in metadata.items() if value != ""}

"""The calls of PayMongo's API that the service uses, with plain values of ours as their answers.

All of them raise what ``Transport`` raises, ``OtherMode``, and what ``UNEXPECTED`` lists if an answer is not as
documented. https://docs.paymongo.com/reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from payments_app.gateways.base import CheckoutSession, GatewayRefund, GatewayRefundRequest, SessionRequest
from payments_app.gateways.paymongo.objects import (
    PayMongoPayment,
    Reader,
    address_of,
    notes_of,
    reference_number_of,
)
from payments_app.gateways.paymongo.transport import NoAnswer, Transport
from payments_app.gateways.untrusted import Unreadable, amount_of, text_of

# The largest page of a list.
PAGE_SIZE = 100

# Pages of a list that is compared with our books: half a million objects, newest first.
MOST_PAGES_OF_LIST = 5_000


class SearchGivenUp(NoAnswer):
    """There are more objects than a search reads."""


class PayMongoApi:
    """``pages``: how many pages of refunds are read at most before a search gives up."""

    def __init__(self, transport: Transport, reader: Reader, *, pages: int) -> None:
        self._transport = transport
        self._reader = reader
        self._pages = pages

    def open_session(self, request: SessionRequest, method_types: list[str]) -> CheckoutSession:
        charge = request.charge
        item = {
            "amount": charge.amount_minor,
            "currency": charge.currency,
            "name": request.description,
            "quantity": 1,
        }
        back = {} if request.return_url is None else dict.fromkeys(("success_url", "cancel_url"), request.return_url)
        made = self._transport.post(
            "/checkout_sessions",
            {
                "line_items": [item],
                "payment_method_types": method_types,
                "reference_number": reference_number_of(request),
                "description": request.description,
                "metadata": {"payment_id": str(charge.payment_id), "consultation_id": str(charge.consultation_id)},
                "send_email_receipt": False,
                "show_description": True,
                "show_line_items": True,
                **back,
            },
            gateway_key=request.gateway_key,
        )
        return self._reader.session_of(self._reader.object_of(made.members))

    def get_session(self, reference: str) -> CheckoutSession:
        found = self._transport.get(f"/checkout_sessions/{address_of(reference)}")
        return self._reader.session_of(self._reader.object_of(found.members))

    def expire_session(self, reference: str) -> CheckoutSession:
        ended = self._transport.post(f"/checkout_sessions/{address_of(reference)}/expire")
        return self._reader.session_of(self._reader.object_of(ended.members))

    def get_payment(self, transaction_id: str) -> PayMongoPayment:
        found = self._transport.get(f"/payments/{address_of(transaction_id)}")
        return self._reader.payment_of(self._reader.object_of(found.members))

    def get_refund(self, reference: str) -> GatewayRefund:
        found = self._transport.get(f"/refunds/{address_of(reference)}")
        return self._reader.refund_of(self._reader.object_of(found.members))

    def create_refund(self, order: GatewayRefundRequest) -> GatewayRefund:
        made = self._transport.post(
            "/refunds",
            {
                "amount": order.amount_minor,
                "payment_id": order.transaction_id,
                "reason": "requested_by_customer",
                "notes": notes_of(order),
                "metadata": {"refund_id": str(order.refund_id), "payment_id": str(order.payment_id)},
            },
            gateway_key=f"refund-{order.refund_id}",
        )
        return self._reader.refund_of(self._reader.object_of(made.members))

    def refunds_of(self, payment: PayMongoPayment) -> Iterator[GatewayRefund]:
        """Every refund of the payment: those that it lists itself, then those of the list of all refunds.

        The list has no filter, so pages are read, newest refunds first, until one is older than the payment.

        Raises:
            SearchGivenUp: after so many pages there are still more that could be of this payment.
        """
        seen = set()
        for refund in payment.refunds or ():
            seen.add(refund.reference)
            yield refund
        for thing in self._listed_since("/refunds", payment.paid_at, pages=self._pages):
            # Only those of this payment are read: an odd refund of somebody else's must not hide this one.
            if text_of(thing["attributes"]["payment_id"]) == payment.transaction_id and thing["id"] not in seen:
                seen.add(thing["id"])
                yield self._reader.refund_of(thing)

    def ping(self, transaction_id: str) -> datetime | None:
        """Ask for a payment; the server's clock."""
        return self._transport.get(f"/payments/{transaction_id}").at

    def payments_between(self, since: int, until: int) -> Iterator[PayMongoPayment]:
        """Every payment created in that time, from ``since`` to before ``until`` (seconds since 1970).

        Raises:
            SearchGivenUp: the list is longer than what is read of one.
        """
        return map(self._reader.payment_of, self._between("/payments", since, until))

    def refunds_between(self, since: int, until: int) -> Iterator[GatewayRefund]:
        """Every refund created in that time. Raises what ``payments_between`` raises."""
        return map(self._reader.refund_of, self._between("/refunds", since, until))

    def _between(self, path: str, since: int, until: int) -> Iterator[Mapping[str, Any]]:
        for thing in self._listed_since(path, since, pages=MOST_PAGES_OF_LIST):
            if since <= amount_of(thing["attributes"]["created_at"], least=0) < until:
                yield thing

    def _listed_since(self, path: str, since: int | None, *, pages: int) -> Iterator[Mapping[str, Any]]:
        """All objects of a list until a page goes back before that moment, and all others of that page."""
        params, last = {"limit": str(PAGE_SIZE)}, ""
        for _ in range(pages):
            answer = self._transport.get(path, params)
            page = self._reader.page_of(answer.members)
            yield from page
            # Without has_more a full page may have another one behind it.
            has_more = answer.members.get("has_more", len(page) >= PAGE_SIZE)
            if not has_more or not page or _goes_back_before(page, since):
                return
            if page[-1]["id"] == last:  # it ignores where a page is to begin
                raise Unreadable
            last = text_of(page[-1]["id"])
            params["after"] = last
        raise SearchGivenUp(f"not among the {pages * PAGE_SIZE} newest of {path}, and there are more")


def _goes_back_before(page: Sequence[Mapping[str, Any]], since: int | None) -> bool:
    """Whether the page, newest first, ends before that moment: in any other order nothing follows from it."""
    times = [amount_of(thing["attributes"].get("created_at"), least=0) for thing in page] if since is not None else []
    is_newest_first = times == sorted(times, reverse=True) and len(set(times)) > 1
    return since is not None and is_newest_first and times[-1] < since

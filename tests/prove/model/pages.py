"""The pages on which patients pay, at Stripe and PayMongo: what the model knows of each, and how the fakes are moved.

A row is what the service knows of a session; a page is the gateway's own object, of which the service may know nothing.
"""

import json
from dataclasses import dataclass, field
from typing import Protocol

from flask import Flask

from tests.gateway_webhooks import send as send_to_stripe
from tests.prove.model.stripe_account import Weather
from tests.support.client import ApiResponse
from tests.support.fake_gateway import Wire
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe import FakeStripe
from tests.support.paymongo_apps import PayMongoApp
from tests.support.people import People


@dataclass(eq=False)
class Page:
    """``number`` is that of the row it was opened from. ``money``: ``none``, ``on its way``, ``came`` or ``failed``."""

    payment: "PagedPayment"
    number: int
    has_ended: bool = False
    money: str = "none"
    # The gateway's names for both; None until it has given them.
    reference: str | None = None
    transaction: str | None = None


@dataclass(eq=False)
class Row:
    """A session's row. ``number`` is None if an event told of the session, and no checkout."""

    number: int | None
    status: str
    page: Page | None = None
    # Its end has passed, by our clock.
    is_over: bool = False


@dataclass(eq=False)
class PagedRefund:
    amount: int
    status: str
    is_at_gateway: bool


@dataclass(eq=False)
class PagedPayment:
    consultation: int
    amount: int
    status: str = "pending"
    version: int = 0
    transaction: str | None = None
    received: int = 0
    needs_review: bool = False
    review_sticky: bool = False
    is_overdue: bool = False
    rows: list[Row] = field(default_factory=list)
    paid_again: set[str] = field(default_factory=set)
    refunds: list[PagedRefund] = field(default_factory=list)
    id: int = 0

    def __repr__(self) -> str:
        return f"payment_{self.id}"

    @property
    def refunded(self) -> int:
        return sum(refund.amount for refund in self.refunds if refund.status == "succeeded")

    @property
    def left(self) -> int:
        return self.received - sum(refund.amount for refund in self.refunds if refund.status != "failed")


class Manners(Protocol):
    """What differs between the two, in the model."""

    remembers_keys: bool
    sessions_have_an_end: bool
    # A session on which money is on its way is shown to the patient again, who may go on there.
    can_be_continued: bool
    # An event is read again from the gateway when it is heard; otherwise it says what was so when it was made.
    events_are_read_again: bool

    def status(self, page: Page) -> str: ...


class StripePages:
    """Hosted Checkout Sessions. A page takes one patient's form: once it is sent, it is complete, or ended."""

    remembers_keys, sessions_have_an_end, can_be_continued, events_are_read_again = True, True, False, False

    def __init__(self, fake: FakeStripe, app: Flask) -> None:
        self.fake, self.app = fake, app

    @staticmethod
    def status(page: Page) -> str:
        if page.money == "came":
            return "succeeded"
        if page.money == "on its way":
            return "processing"
        return "expired" if page.has_ended or page.money == "failed" else "open"

    @staticmethod
    def can_be_paid(page: Page) -> bool:
        return page.money == "none" and not page.has_ended

    def known(self) -> dict[tuple[int, int], str]:
        """The references of all pages, by our payment's id and the number of the session."""
        return {
            (int(each["metadata"]["payment_id"]), int(each["_intent_metadata"]["checkout_session"])): reference
            for reference, each in self.fake.sessions.items()
        }

    def seen(self, reference: str) -> str:
        session = self.fake.sessions[reference]
        intent = self.fake.intents.get(session["payment_intent"])
        if session["status"] == "complete":
            assert intent is not None
            return {"processing": "processing", "succeeded": "succeeded"}.get(intent["status"], "expired")
        return str(session["status"])

    def pay(self, page: Page) -> str:
        reference = str(page.reference)
        if page.money == "on its way":
            self.fake.finish(reference, paid=True)
            return str(page.transaction)
        return str(self.fake.submit(reference)["id"])

    def start(self, page: Page) -> str:
        return str(self.fake.submit(str(page.reference), "later")["id"])

    def fail(self, page: Page) -> None:
        self.fake.finish(str(page.reference), paid=False)

    def end(self, page: Page) -> None:
        self.fake.pass_expiry(str(page.reference))

    def events_of(self, page: Page) -> list[tuple[str, Wire]]:
        """What Stripe may say of it now: what it says to the model, and the event."""
        reference = str(page.reference)
        events: list[tuple[str, Wire]] = []
        if page.money in ("on its way", "came", "failed"):
            is_paid = page.money == "came"
            # Without the intent, which alone says that money did not come.
            said = "session succeeded" if is_paid else "session processing"
            events.append((said, self.fake.session_event("completed", reference)))
        if page.money == "came":
            events.append(("money came", self.fake.intent_event("succeeded", str(page.transaction))))
        elif page.money == "on its way":
            events.append(("money on its way", self.fake.intent_event("processing", str(page.transaction))))
        elif page.money == "failed":
            events.append(("session expired", self.fake.session_event("async_payment_failed", reference)))
        elif page.has_ended:
            events.append(("session expired", self.fake.session_event("expired", reference)))
        return events

    def refunded(self, transaction: str) -> int:
        return self.fake.refunded_total(transaction)

    def send(self, event: Wire) -> ApiResponse:
        body = json.dumps(event).encode()
        return send_to_stripe(self.app, body, self.fake.sign(body))


class PayMongoPages:
    """Checkout sessions whose wallets may take money after they have ended."""

    remembers_keys, sessions_have_an_end, can_be_continued, events_are_read_again = False, False, True, True

    def __init__(self, fake: FakePayMongo, app: Flask) -> None:
        self.fake, self.app = fake, app

    @staticmethod
    def status(page: Page) -> str:
        if page.money in ("came", "on its way"):
            return "succeeded" if page.money == "came" else "processing"
        return "expired" if page.has_ended else "open"

    @staticmethod
    def can_be_paid(page: Page) -> bool:
        return page.money in ("none", "failed")

    def known(self) -> dict[tuple[int, int], str]:
        found = {}
        for reference, session in self.fake.sessions.items():
            attributes = session["attributes"]
            number = attributes["reference_number"].rpartition(" ")[2]
            found[int(attributes["metadata"]["payment_id"]), int(number)] = reference
        return found

    def seen(self, reference: str) -> str:
        statuses = [each["attributes"]["status"] for each in self.fake.payments_of(reference)]
        if any(status not in ("pending", "failed") for status in statuses):
            return "succeeded"
        if "pending" in statuses:
            return "processing"
        return {"active": "open"}.get(self.fake.sessions[reference]["attributes"]["status"], "expired")

    def pay(self, page: Page) -> str:
        return self.fake.pay(str(page.reference), late=page.has_ended)

    def start(self, page: Page) -> str:
        return self.fake.start_processing(str(page.reference))

    def fail(self, page: Page) -> None:
        self.fake.tamper("payments", str(page.transaction), status="failed")

    def end(self, page: Page) -> None:
        self.fake.end(str(page.reference))

    def events_of(self, page: Page) -> list[tuple[str, Wire]]:
        if page.money == "came":
            paid = self.fake.payment_event("paid", str(page.transaction))
            return [("session succeeded", self.fake.session_paid(str(page.reference))), ("money came", paid)]
        if page.money == "failed":
            return [("attempt failed", self.fake.payment_event("failed", str(page.transaction)))]
        return []

    def refunded(self, transaction: str) -> int:
        return self.fake.refunded_total(transaction)

    def send(self, event: Wire) -> ApiResponse:
        body = json.dumps(event).encode()
        # Its people are not asked for anything.
        return PayMongoApp(self.fake, self.app, _nobody()).send(body, self.fake.sign(body))


def _nobody() -> People:
    return None  # type: ignore[return-value]  # an event is sent by nobody of ours


class PagesAccount:
    """The gateway of the model: its pages, and what it answers. None is silence."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self.pages: list[Page] = []
        self._late: list[tuple[PagedPayment, int]] = []

    def open(self, payment: PagedPayment, number: int, weather: Weather) -> Page | str | None:
        """The page; ``refused``; or None."""
        page = self._find(payment, number)
        if weather is Weather.REFUSING and page is None:
            return "refused"
        if weather is Weather.LATE:
            self._late.append((payment, number))
        elif weather is not Weather.BROKEN:
            page = page or self._make(payment, number)
        return None if weather.is_silent else page

    def apply_late(self) -> None:
        late, self._late = self._late, []
        for payment, number in late:
            if self._find(payment, number) is None:
                self._make(payment, number)

    def look_up(self, page: Page, weather: Weather) -> str | None:
        return None if weather.is_silent else self.manners.status(page)

    def end(self, page: Page, weather: Weather) -> str | None:
        """What it is after it was to be ended. Money that is on its way, or came, keeps what it is."""
        is_applied = weather not in (Weather.BROKEN, Weather.REFUSING)
        if is_applied and (page.money != "came" and (self.manners.events_are_read_again or page.money != "on its way")):
            page.has_ended = True
        return self.look_up(page, weather)

    def _find(self, payment: PagedPayment, number: int) -> Page | None:
        return next((each for each in self.pages if (each.payment, each.number) == (payment, number)), None)

    def _make(self, payment: PagedPayment, number: int) -> Page:
        page = Page(payment, number)
        self.pages.append(page)
        return page


Pages = StripePages | PayMongoPages

"""Whatever patients, gateways with a page of their own, timers and time may do; after each step all books agree."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.prove.model.pages import Page, PagedPayment, Pages, PagesAccount
from tests.prove.model.pages_model import PagesModel, rows_of
from tests.prove.model.records import Refusal
from tests.prove.model.service_under_test import ServiceUnderTest, problem_of
from tests.prove.model.stripe_account import Weather
from tests.support.client import ApiResponse
from tests.support.fake_stripe_state import Wire

line = st.sampled_from([Weather.FINE] * 8 + [Weather.LOST, Weather.BROKEN])
checkout_line = st.sampled_from([Weather.FINE] * 6 + [Weather.LOST, Weather.BROKEN, Weather.LATE, Weather.REFUSING])
choices = st.integers(0, 11)

# How far the first payments have come when an example begins: random steps alone seldom go a long way.
OPENINGS: dict[str, tuple[str, ...]] = {
    "in checkout": ("checkout",),
    "lost": ("checkout, lost", "checkout"),
    "second session": ("checkout", "end", "checkout"),
    "money by the first, late": ("checkout", "end", "checkout", "pay the first"),
    "on its way by the first": ("checkout", "end", "checkout", "start the first"),
    "third session": ("checkout", "end", "checkout", "end", "checkout"),
    "overdue": ("checkout", "end", "checkout", "overdue"),
    "paid": ("checkout", "pay the first", "tell"),
}
openings = st.sampled_from([*OPENINGS])

Event = tuple[str, Page, Wire]


class PagesMachine(RuleBasedStateMachine):
    """Each rule is a step. ``gateway`` is the one that takes the method ``method``."""

    payments = Bundle("payments")
    events = Bundle("events")

    def __init__(self, service: ServiceUnderTest[Any], gateway: Pages, method: str, met: Counter[str]) -> None:
        super().__init__()
        self.service, self.gateway, self.method, self.met = service, gateway, method, met
        self.model = PagesModel(PagesAccount(gateway))
        self.nothing_happened = False

    @initialize(target=payments, openings=st.tuples(openings, openings))
    def open_with(self, openings: tuple[str, ...]) -> MultipleResults[PagedPayment]:
        for number, opening in enumerate(openings, start=1):
            self.create(number=number)
            payment = self.model.payments[-1]
            for verb in OPENINGS[opening]:
                self._open_with(verb, payment)
        return multiple(*self.model.payments)

    def _open_with(self, verb: str, payment: PagedPayment) -> None:
        pages = [page for page in self.model.gateway.pages if page.payment is payment]
        fine = Weather.FINE
        verbs: dict[str, Callable[[], Any]] = {
            "checkout": lambda: self.checkout(payment=payment, weather=fine),
            "checkout, lost": lambda: self.checkout(payment=payment, weather=Weather.LOST),
            "end": lambda: self._move(pages[-1], "end"),
            "pay the first": lambda: self._move(pages[0], "pay"),
            "start the first": lambda: self._move(pages[0], "start"),
            "overdue": lambda: self.time_is_over(payment=payment),
            "tell": lambda: [self.hear(event=event, weather=fine) for event in self._events_of(pages[0])],
        }
        verbs[verb]()

    # What people ask for

    @rule(target=payments, number=st.sampled_from([1, 2]))
    def create(self, number: int) -> Any:
        expected = self._judge(lambda: self.model.create(number, 5000))
        body = {"consultation_id": number, "amount": 5000, "payment_method": self.method}
        answer = self.service.people.patient.post("/payments", body)
        if isinstance(expected, Refusal):
            self._compare(answer, expected)
            return multiple()
        assert answer.status_code == 201, answer.text
        expected.id = answer.json["data"]["payment_id"]
        return expected

    @rule(payment=payments, weather=checkout_line)
    def checkout(self, payment: PagedPayment, weather: Weather) -> None:
        with self._line(weather):
            answer = self.service.people.patient.post(f"/payments/{payment.id}/checkout")
        expected = self._judge(lambda: self.model.checkout(payment, weather))
        self._learn_references()
        self._compare(answer, expected)
        if isinstance(expected, Page):
            assert answer.json["data"]["reference"] == expected.reference
            assert answer.json["data"]["redirect_url"].endswith(str(expected.reference))

    @rule(payment=payments, choice=choices, is_own=st.sampled_from([True, True, True, False]), weather=line)
    def confirm(self, payment: PagedPayment, choice: int, weather: Weather, *, is_own: bool) -> None:
        pages = [page for page in self.model.gateway.pages if page.transaction and (page.payment is payment) == is_own]
        if not pages:
            return
        transaction = str(pages[choice % len(pages)].transaction)
        expected = self._judge(lambda: self.model.confirm(payment, transaction, weather))
        with self._line(weather):
            answer = self.service.people.patient.confirm(payment.id, transaction)
        self._compare(answer, expected)

    @rule(payment=payments, weather=line)
    def cancel(self, payment: PagedPayment, weather: Weather) -> None:
        expected = self._judge(lambda: self.model.cancel(payment, weather))
        with self._line(weather):
            answer = self.service.people.patient.post(f"/payments/{payment.id}/cancel")
        self._compare(answer, expected)

    @rule(payment=payments, weather=line)
    def refresh(self, payment: PagedPayment, weather: Weather) -> None:
        self.service.rows.execute("UPDATE gateway_sessions SET refreshed_at = NULL")
        self.model.refresh(payment, weather)
        with self._line(weather):
            answer = self.service.people.patient.post(f"/payments/{payment.id}/refresh")
        self._compare(answer, None)

    @rule(payment=payments, amount=st.sampled_from([None, 1000, 1000, 6000]), weather=line)
    def refund(self, payment: PagedPayment, amount: int | None, weather: Weather) -> None:
        members = {} if amount is None else {"amount": amount, "allow_repeat": True}
        expected = self._judge(lambda: self.model.refund(payment, amount, weather))
        with self._line(weather):
            answer = self.service.people.admin.post(f"/payments/{payment.id}/refund", members)
        self._compare(answer, expected)
        if not isinstance(expected, Refusal):
            assert answer.json["data"]["refund"]["status"] == expected.status

    # What happens at the gateway, and what it tells

    @rule(choice=choices, what=st.sampled_from(["pay", "pay", "start", "fail", "end", "end", "end"]))
    def at_the_gateway(self, choice: int, what: str) -> None:
        pages = self.model.gateway.pages
        if pages:
            self._move(pages[choice % len(pages)], what)

    def _move(self, page: Page, what: str) -> None:
        if page.reference is None:
            return
        if (what == "pay" and page.money == "on its way") or (what == "pay" and self.gateway.can_be_paid(page)):
            page.transaction, page.money = self.gateway.pay(page), "came"
        elif what == "start" and self.gateway.can_be_paid(page):
            page.transaction, page.money = self.gateway.start(page), "on its way"
        elif what == "fail" and page.money == "on its way":
            self.gateway.fail(page)
            page.money = "failed"
        elif what == "end" and not page.has_ended and page.money == "none":
            self.gateway.end(page)
            page.has_ended = True

    @rule(target=events, choice=choices, which=choices)
    def tell(self, choice: int, which: int) -> Any:
        """An event is made, and heard some time later, perhaps twice."""
        pages = [page for page in self.model.gateway.pages if page.reference is not None]
        events = self._events_of(pages[choice % len(pages)]) if pages else []
        return events[which % len(events)] if events else multiple()

    def _events_of(self, page: Page) -> list[Event]:
        return [(said, page, event) for said, event in self.gateway.events_of(page)]

    @rule(choice=choices, which=choices, weather=line)
    def tell_at_once(self, choice: int, which: int, weather: Weather) -> None:
        event = self.tell(choice=choice, which=which)
        if isinstance(event, tuple):
            self.hear(event=event, weather=weather)

    @rule(event=events, weather=line)
    def hear(self, event: Event, weather: Weather) -> None:
        said, page, wire = event
        event_id = str(wire.get("id") or wire["data"]["id"])
        expected = self.model.hear(event_id, said, page, weather)
        with self._line(weather):
            answer = self.gateway.send(wire)
        self.met[f"event {said}"] += 1
        assert answer.status_code == expected, answer.text

    @rule()
    def apply_late(self) -> None:
        self.service.fake.apply_late()
        self.model.gateway.apply_late()
        self._learn_references()

    # Timers and time

    @rule(payment=payments)
    def time_is_over(self, payment: PagedPayment) -> None:
        self.service.make_overdue(payment.id)
        payment.is_overdue = True
        for row in payment.rows:
            row.is_over = self.gateway.sessions_have_an_end and row.number is not None

    @rule(weather=line)
    def expire(self, weather: Weather) -> None:
        self.model.expire(weather)
        with self._line(weather):
            self.service.expire()

    @rule(weather=line)
    def resume(self, weather: Weather) -> None:
        self.model.resume(weather)
        with self._line(weather):
            self.service.resume()

    @rule()
    def a_moment_passes(self) -> None:
        """Nothing happens. Hypothesis begins with the simplest way it knows, which is to choose this each time."""
        self.nothing_happened = True

    # After each step

    @invariant()
    def service_model_gateway_and_audit_agree(self) -> None:
        if self.nothing_happened:
            self.nothing_happened = False
            return
        self.met["steps"] += 1
        payments = self.model.payments
        assert self.service.payments() == {payment.id: _of_model(payment) for payment in payments}
        rows = self.service.rows.all("SELECT * FROM gateway_sessions ORDER BY payment_id, id")
        stored = [(row["payment_id"], row["number"], row["status"], row["reference"]) for row in rows]
        assert stored == list(rows_of(payments))
        for page in self.model.gateway.pages:
            assert self.gateway.seen(str(page.reference)) == self.gateway.status(page)
        for payment in payments:
            if payment.transaction is not None:
                returned = sum(refund.amount for refund in payment.refunds if refund.is_at_gateway)
                assert self.gateway.refunded(payment.transaction) == returned * 100
        assert self.service.violations() == []

    def _judge(self, judge: Callable[[], Any]) -> Any:
        try:
            return judge()
        except Refusal as refusal:
            return refusal

    def _compare(self, answer: ApiResponse, expected: Any) -> None:
        self.met[f"{answer.status_code} {problem_of(answer) or ''}".strip()] += 1
        if isinstance(expected, Refusal):
            assert (answer.status_code, problem_of(answer)) == (expected.status, expected.code), answer.text
        else:
            assert answer.status_code in (200, 202), answer.text

    def _learn_references(self) -> None:
        """The gateway alone knows the names that it gives."""
        known = self.gateway.known()
        for page in self.model.gateway.pages:
            page.reference = known[page.payment.id, page.number]

    @contextmanager
    def _line(self, weather: Weather) -> Iterator[None]:
        fake = self.service.fake
        if weather is not Weather.FINE:
            fake.misbehave(weather.value, path="/v1/", times=None)
            if weather.is_silent:
                fake.misbehave("error_before", method="GET", path="/v1/", times=None)
        yield
        fake.behave()


def _of_model(payment: PagedPayment) -> tuple[Any, ...]:
    return (
        payment.consultation,
        payment.amount,
        payment.status,
        payment.version,
        payment.transaction,
        payment.refunded,
        payment.needs_review,
    )

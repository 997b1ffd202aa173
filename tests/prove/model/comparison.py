"""How service and model are compared after each step, and what the steps have in common."""

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.prove.model.records import ADMIN, SECOND, Belief, Key, Link, ModelResponse, Payment, Refund, Refusal
from tests.prove.model.reference_model import ReferenceModel
from tests.prove.model.service_under_test import PATIENTS, SHOWN, ServiceUnderTest, problem_of
from tests.prove.model.stripe_account import Weather
from tests.support.client import ApiResponse
from tests.support.fake_stripe import FakeStripe
from tests.support.links import Payer
from tests.support.people import Person

INTENTS = "/v1/payment_intents"
REFUNDS = "/v1/refunds"
NOWHERE = 2**63 - 1
# Of Stripe's words for a session that nobody has paid yet, the model has one.
WORDS = {"requires_payment_method": "open"}

Rule = Callable[..., Any]


class Comparison(RuleBasedStateMachine):
    """``service`` is emptied for each run."""

    def __init__(self, service: ServiceUnderTest[FakeStripe], met: Counter[str]) -> None:
        super().__init__()
        self.service, self.met = service, met
        self.model = ReferenceModel(PATIENTS)
        self.touched: Payment | None = None
        self.nothing_happened = True
        self.asked: list[tuple[Rule, dict[str, Any]]] = []
        self.payers: dict[Link, Payer] = {}
        self._second = service.people.another_admin()
        self._seen: dict[int, tuple[Any, ...]] = {}
        self._seen_in_detail: dict[Payment, int] = {}
        self._numbers = itertools.count(1)

    # After each step

    @invariant()
    def service_model_and_audit_agree(self) -> None:
        nothing_happened, self.nothing_happened = self.nothing_happened, False
        if not nothing_happened:
            self.met["steps"] += 1
            self._compare_payments()
            self._compare_details()
            self._compare_stripe()
            assert self.service.violations() == []

    def _compare_payments(self) -> None:
        """The rows after every step; the API where something has changed, because most steps are refused."""
        expected = {payment.id: _of_model(payment) for payment in self.model.payments}
        assert self.service.payments() == expected
        if expected != self._seen:
            self._seen = expected
            assert {each["id"]: _of_api(each) for each in self.service.ask("/payments?per_page=100")} == expected

    def _compare_details(self) -> None:
        """Asked again only where something may have changed: most steps are refused."""
        payment, self.touched = self.touched, None
        if payment is None or self._seen_in_detail.get(payment) == payment.version:
            return
        self._seen_in_detail[payment] = payment.version
        shown = self.service.ask(f"/payments/{payment.id}")
        assert [invoice["status"] for invoice in shown["invoices"]] == [payment.invoice]
        refunds = sorted((refund["amount"], refund["status"]) for refund in shown["refunds"])
        assert refunds == sorted((refund.amount, refund.status) for refund in payment.refunds)
        if payment.disputes:
            disputes = self.service.ask(f"/disputes?payment_id={payment.id}&per_page=100")
            assert [(each["reference"], each["status"]) for each in reversed(disputes)] == [
                (dispute.reference, dispute.status) for dispute in payment.disputes
            ]

    def _compare_stripe(self) -> None:
        stripe, fake = self.model.stripe, self.service.fake
        for payment, reference in stripe.references.items():
            intent = fake.intents[reference]
            assert WORDS.get(intent["status"], intent["status"]) == stripe.sessions[payment]
            assert fake.refunded_total(reference) == (payment.amount - stripe.left(payment)) * 100

    def _compare_consultations(self) -> None:
        consultations = {each["id"]: each for each in self.service.ask("/consultations?per_page=100")}
        for number, consultation in self.model.consultations.items():
            active = self.model.active(number)
            seen = consultations[number]
            assert seen["fee"] == consultation.fee
            assert seen["status"] == ("closed" if consultation.is_closed else "open")
            assert seen["patient_id"] == self._person(consultation.patient).id
            assert (seen["active_payment"] or {}).get("id") == (active and active.id)

    def teardown(self) -> None:
        if sys.exception() is not None:  # a step has failed: that is what is to be told
            return
        self._compare_consultations()
        assert self.service.audit() == []
        assert self.service.rows.count("payments") == len(self.model.payments)
        assert self.service.rows.count("idempotency_keys") == len(self.model.keys)
        for payment in self.model.payments:
            self._seen_in_detail.clear()
            self.touched = payment
            self._compare_details()

    # Asking and judging

    def _judge(self, judge: Callable[[], Any]) -> Any:
        try:
            return judge()
        except Refusal as refusal:
            return refusal

    def _compare(self, answer: ApiResponse, expected: ModelResponse | Refusal) -> None:
        self.met[f"{answer.status_code} {problem_of(answer) or ''}".strip()] += 1
        self.met["replays"] += "Idempotent-Replayed" in answer.headers
        if isinstance(expected, Refusal):
            assert (answer.status_code, problem_of(answer)) == (expected.status, expected.code), answer.text
            return
        self.touched = expected.payment
        assert answer.status_code == expected.status, answer.text
        assert ("Idempotent-Replayed" in answer.headers) == (expected.first is not None), answer.text
        if expected.made is not None:
            self._learn_ids(answer, expected)
        first = expected.first
        if first is not None and first.body is not None and not first.is_pruned and first.refund is None:
            assert answer.data == first.body  # to the byte, whatever has become of the payment since
        elif expected.status != 402:
            self._compare_data(answer.json["data"], expected)

    def _compare_data(self, data: Any, expected: ModelResponse) -> None:
        if expected.first is None or expected.first.operation != "create" or expected.first.is_pruned:
            assert _of_api(data["payment"]) == _of_model(expected.payment)
        if expected.first is not None and expected.first.is_pruned:
            assert data["type"] == "existing"
        if expected.refund is not None:
            assert (data["refund"]["id"], data["refund"]["status"]) == (expected.refund.id, expected.refund.status)

    def _learn_ids(self, answer: ApiResponse, expected: ModelResponse) -> None:
        made: Key | None = expected.made
        assert made is not None
        data = answer.json["data"]
        if made.operation == "create":
            expected.payment.id = data["payment_id"]
        if made.refund is not None:
            made.refund.id = data["refund_id"] if expected.status == 402 else data["refund"]["id"]
        if made.operation != "checkout":
            made.body = answer.data

    def _learn_references(self) -> None:
        """Stripe alone knows the names that it gives."""
        by_id = {str(payment.id): payment for payment in self.model.payments}
        for reference, intent in self.service.fake.intents.items():
            self.model.stripe.references[by_id[intent["metadata"]["payment_id"]]] = reference

    def _transaction_of(self, payment: Payment) -> str:
        return self.model.stripe.references.get(payment, f"TXN-of-{payment.id}")

    def _reference_of(self, payment: Payment, refund: Refund) -> str:
        if refund.reference is None:
            made = self.service.fake.refunds_of(self.model.stripe.references[payment])
            refund.reference = next(each["id"] for each in made if each["metadata"].get("refund_id") == str(refund.id))
        return refund.reference

    def _change(
        self, who: str, verb: str, payment: Payment | None, key: str | None, *, believed: Belief, at: int, **body: Any
    ) -> ApiResponse:
        headers = headers_for(key)
        if believed.if_match is not None:
            headers["If-Match"] = f'"{at + (not believed.if_match)}"'
        if believed.expected_version is not None:
            body["expected_version"] = at + (not believed.expected_version)
        return self._person(who).post(f"/payments/{id_of(payment)}/{verb}", body, headers=headers)

    @contextmanager
    def _stripe(self, weather: Weather, path: str) -> Iterator[None]:
        fake = self.service.fake
        if weather is Weather.SLOW:
            fake.refunds_start_as = "pending"
        elif weather is not Weather.FINE:
            fake.misbehave(weather.value, path=path, times=None)
            if weather in (Weather.LOST, Weather.BROKEN):
                fake.misbehave(weather.value, method="GET", path=path, times=None)
        yield
        fake.refunds_start_as = "succeeded"
        fake.behave()

    @staticmethod
    def _asker(who: str, owner: str) -> str:
        return {"owner": owner, "staff": ADMIN, "stranger": "other" if owner == "patient" else "patient"}[who]

    def _person(self, who: str) -> Person:
        if who == SECOND:
            return self._second
        person: Person = getattr(self.service.people, who)
        return person

    def _model_key(self, key: str | None) -> str:
        return key or f"made-{next(self._numbers)}"


def id_of(payment: Payment | None) -> int:
    return NOWHERE if payment is None else payment.id


def headers_for(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _of_api(shown: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(shown[name] for name in SHOWN)


def _of_model(payment: Payment) -> tuple[Any, ...]:
    return (
        payment.consultation,
        payment.amount,
        payment.status,
        payment.version,
        payment.transaction,
        payment.refunded,
        payment.needs_review,
    )

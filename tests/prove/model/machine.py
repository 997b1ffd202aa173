"""Whatever people, Stripe, timers and time may do, in any order; after each step service, model and audit agree."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, initialize, multiple, precondition, rule

from tests.prove.model.comparison import INTENTS, REFUNDS, Comparison, Rule, headers_for, id_of
from tests.prove.model.records import ADMIN, SECOND, Belief, Dispute, Link, ModelResponse, Payment, Refund, Refusal
from tests.prove.model.service_under_test import PATIENTS, problem_of
from tests.prove.model.stripe_account import Weather
from tests.support.fake_stripe_state import PAYABLE, Wire
from tests.support.links import payer_of

# What Stripe says of a dispute, and what that is here.
OF_STRIPE = {
    "warning_needs_response": "inquiry",
    "warning_closed": "inquiry_closed",
    "needs_response": "needs_response",
    "under_review": "under_review",
    "won": "won",
    "lost": "lost",
}

# Often the same few, so that keys meet; None leaves the key to the service.
keys = st.sampled_from([None, None, None, None, "k1", "k2", "k3"])
# Who asks: mostly those who may.
askers = st.sampled_from(["owner"] * 6 + ["staff", "staff", "stranger"])
whoever = st.sampled_from(["patient", "other", ADMIN])
beliefs = st.sampled_from(
    [Belief()] * 5
    + [Belief(if_match=True), Belief(if_match=False), Belief(expected_version=True), Belief(expected_version=False)]
    + [Belief(if_match=True, expected_version=False)]
)
line = st.sampled_from([Weather.FINE] * 6 + [Weather.LOST, Weather.BROKEN])
rarely = st.sampled_from([False] * 15 + [True])
choices = st.integers(0, 11)
# The same amount may be written in several ways.
amounts = st.sampled_from([5000, 5000, 5000, "5000", "5000.00", 6000, 999])
methods = st.sampled_from(["stripe", "stripe", "bank_transfer"])

# What somebody with a payment link asks for.
by_link = st.sampled_from(["create", "create", "checkout", "cancel", "look"])

# How far the first payments have come when an example begins: random steps alone seldom go a long way.
OPENINGS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "pending": ("create",),
    "in checkout": ("create", "checkout"),
    "paid": ("create", "checkout", "pay"),
    "processing": ("create", "checkout", "start", "tell"),
    "completed": ("create", "checkout", "pay", "confirm"),
    "partly refunded": ("create", "checkout", "pay", "confirm", "refund"),
    "expired": ("create", "checkout", "overdue", "expire"),
    # The answer to the checkout was lost, so that we know of no session to end; and then somebody pays by it.
    "paid after its end": ("create", "checkout, lost", "cancel", "pay", "tell"),
    "paid after its time": ("create", "checkout, lost", "overdue", "expire", "pay"),
}
# Where there is money, there is most to go wrong.
openings = st.sampled_from(
    [*OPENINGS, "completed", "completed", "partly refunded", "partly refunded", "partly refunded"]
)


def remembered(ask: Rule) -> Rule:
    """A request under a key is remembered, to be sent again."""

    @wraps(ask)
    def asking(machine: "PaymentsMachine", **how: Any) -> Any:
        if how["key"] is not None:
            machine.asked.append((ask, how))
        return ask(machine, **how)

    return asking


class PaymentsMachine(Comparison):
    """Each rule is a step."""

    payments = Bundle("payments")
    events = Bundle("events")
    links = Bundle("links")

    @initialize(target=payments, openings=st.tuples(openings, openings, openings), method=methods)
    def open_with(self, openings: tuple[str, ...], method: str) -> MultipleResults[Payment]:
        for number, opening in enumerate(openings, start=1):
            for verb in OPENINGS[opening]:
                self._open_with(verb, number, method)
        return multiple(*self.model.payments)

    def _open_with(self, verb: str, number: int, method: str) -> None:
        payment = next((each for each in reversed(self.model.payments) if each.consultation == number), None)
        fine = {"who": "owner", "key": None, "is_missing": False, "weather": Weather.FINE}
        by_staff = {**fine, "who": "staff", "belief": Belief()}
        verbs: dict[str, Callable[[], Any]] = {
            "create": lambda: self.create(who="owner", key=None, number=number, amount=5000, method=method),
            "checkout": lambda: self.checkout(payment=payment, **fine),
            "checkout, lost": lambda: self.checkout(payment=payment, **{**fine, "weather": Weather.LOST}),
            "cancel": lambda: self.cancel(payment=payment, belief=Belief(), **fine),
            "confirm": lambda: self.confirm(payment=payment, transaction="own", pays_first=False, **by_staff),
            "refund": lambda: self.refund(payment=payment, amount=1000, expects=None, is_meant=True, **by_staff),
            "overdue": lambda: self.time_is_over(payment=payment),
            "expire": lambda: self.expire(weather=Weather.FINE),
            "pay": lambda: self.at_stripe(payment=payment, what="pay"),
            "start": lambda: self.at_stripe(payment=payment, what="start"),
            "tell": lambda: self.hear(event=self.tell_of_a_session(payment=payment)),
        }
        if verb not in ("pay", "start", "tell") or method == "stripe":
            verbs[verb]()

    # What people ask for

    @rule(
        target=payments,
        who=askers,
        key=keys,
        number=st.sampled_from([1, 1, 2, 2, 3, 9]),
        amount=amounts,
        method=methods,
    )
    @remembered
    def create(self, *, who: str, key: str | None, number: int, amount: int | str, method: str) -> Any:
        consultation = self.model.consultations.get(number)
        asker = self._asker(who, consultation.patient if consultation else "patient")
        model_key = self._model_key(key)
        expected = self._judge(lambda: self.model.create(asker, model_key, number, int(float(amount)), method))
        body = {"consultation_id": number, "amount": amount, "payment_method": method}
        self._compare(self._person(asker).post("/payments", body, headers=headers_for(key)), expected)
        return expected.payment if isinstance(expected, ModelResponse) and expected.made else multiple()

    @rule(who=askers, key=keys, payment=payments, is_missing=rarely, weather=st.one_of(line, st.just(Weather.REFUSING)))
    @remembered
    def checkout(self, *, who: str, key: str | None, payment: Payment, is_missing: bool, weather: Weather) -> None:
        asker, model_key, found = (
            self._asker(who, payment.patient),
            self._model_key(key),
            None if is_missing else payment,
        )
        expected = self._judge(lambda: self.model.checkout(asker, model_key, found, weather))
        with self._stripe(weather, INTENTS):
            answer = self._person(asker).post(f"/payments/{id_of(found)}/checkout", headers=headers_for(key))
        self._learn_references()
        self._compare(answer, expected)

    @rule(
        who=askers,
        key=keys,
        payment=payments,
        is_missing=rarely,
        transaction=st.one_of(st.sampled_from(["own"] * 8 + ["TXN-1", "TXN-2", "pi_none"]), payments),
        pays_first=st.booleans(),
        belief=beliefs,
        weather=line,
    )
    @remembered
    def confirm(
        self,
        *,
        who: str,
        key: str | None,
        payment: Payment,
        is_missing: bool,
        transaction: str | Payment,
        pays_first: bool,
        belief: Belief,
        weather: Weather,
    ) -> None:
        if pays_first:
            self.at_stripe(payment=payment, what="pay")
        if transaction == "own" or isinstance(transaction, Payment):
            transaction = self._transaction_of(transaction if isinstance(transaction, Payment) else payment)
        asker, model_key, found = (
            self._asker(who, payment.patient),
            self._model_key(key),
            None if is_missing else payment,
        )
        version = payment.version
        expected = self._judge(
            lambda: self.model.confirm(asker, model_key, found, transaction=transaction, belief=belief, weather=weather)
        )
        with self._stripe(weather, INTENTS):
            answer = self._change(asker, "confirm", found, key, believed=belief, at=version, transaction_id=transaction)
        self._compare(answer, expected)

    @rule(who=askers, key=keys, payment=payments, is_missing=rarely, belief=beliefs, weather=line)
    @remembered
    def cancel(
        self, *, who: str, key: str | None, payment: Payment, is_missing: bool, belief: Belief, weather: Weather
    ) -> None:
        asker, model_key, found = (
            self._asker(who, payment.patient),
            self._model_key(key),
            None if is_missing else payment,
        )
        version = payment.version
        expected = self._judge(lambda: self.model.cancel(asker, model_key, found, belief, weather))
        with self._stripe(weather, INTENTS):
            answer = self._change(asker, "cancel", found, key, believed=belief, at=version)
        self._compare(answer, expected)

    @rule(
        who=st.sampled_from(["staff"] * 8 + ["owner"]),
        key=keys,
        payment=payments,
        is_missing=rarely,
        amount=st.sampled_from([None, 1000, 1000, 2500, 100_000]),
        # By how much the caller is wrong about what is left; None: they say nothing of it.
        expects=st.sampled_from([None] * 6 + [0, 1]),
        is_meant=st.sampled_from([None, False, True]),
        belief=beliefs,
        weather=st.one_of(line, st.sampled_from([Weather.SLOW, Weather.LATE, Weather.REFUSING])),
    )
    @remembered
    def refund(
        self,
        *,
        who: str,
        key: str | None,
        payment: Payment,
        is_missing: bool,
        amount: int | None,
        expects: int | None,
        is_meant: bool | None,
        belief: Belief,
        weather: Weather,
    ) -> None:
        asker, model_key, found = (
            self._asker(who, payment.patient),
            self._model_key(key),
            None if is_missing else payment,
        )
        version = payment.version
        expected_left = None if expects is None else payment.left + expects
        members = {"amount": amount, "expected_refundable": expected_left, "allow_repeat": is_meant}
        members = {name: value for name, value in members.items() if value is not None}
        expected = self._judge(
            lambda: self.model.refund(
                asker,
                model_key,
                found,
                amount=amount,
                expects=expected_left,
                may_repeat=bool(key or is_meant or amount is None),
                belief=belief,
                weather=weather,
            )
        )
        with self._stripe(weather, REFUNDS):
            answer = self._change(asker, "refund", found, key, believed=belief, at=version, **members)
        self._compare(answer, expected)

    @precondition(lambda self: self.refunds_of_ours)
    @rule(
        choice=choices,
        who=st.sampled_from([SECOND, SECOND, SECOND, ADMIN]),
        approves=st.booleans(),
        weather=st.one_of(line, st.sampled_from([Weather.SLOW, Weather.REFUSING])),
    )
    def decide(self, choice: int, who: str, approves: bool, weather: Weather) -> None:
        """Mostly one that waits for it, if there is any."""
        waiting = [(p, r) for p, r in self.refunds_of_ours if r.status == "requested"] or self.refunds_of_ours
        payment, refund = waiting[choice % len(waiting)]
        key = self._model_key(None)
        if approves:
            expected = self._judge(lambda: self.model.approve(who, key, payment, refund, weather))
            with self._stripe(weather, REFUNDS):
                answer = self._person(who).post(f"/refunds/{refund.id}/approve")
        else:
            expected = self._judge(lambda: self.model.reject(who, key, payment, refund))
            answer = self._person(who).post(f"/refunds/{refund.id}/reject", {"reason": "not agreed"})
        self._compare(answer, expected)

    @precondition(lambda self: self.refunds_of_ours)
    @rule(
        choice=choices,
        who=st.sampled_from([ADMIN, SECOND]),
        transfer=st.sampled_from(["OUT-1", "OUT-1", "OUT-2", "OUT-3"]),
    )
    def send_by_hand(self, choice: int, who: str, transfer: str) -> None:
        """Mostly one that is to be sent, if there is any."""
        by_hand = [(p, r) for p, r in self.refunds_of_ours if r.by_hand]
        to_be_sent = [(p, r) for p, r in by_hand if r.status == "pending"] if choice % 3 else []
        payment, refund = (some := to_be_sent or by_hand or self.refunds_of_ours)[choice % len(some)]
        key = self._model_key(None)
        expected = self._judge(lambda: self.model.settle_by_hand(who, key, payment, refund, transfer))
        answer = self._person(who).post(f"/refunds/{refund.id}/settle", {"reference": transfer})
        self._compare(answer, expected)

    @property
    def refunds_of_ours(self) -> list[tuple[Payment, Refund]]:
        return [(p, r) for p in self.model.payments for r in p.refunds if not r.made_elsewhere and r.id]

    @precondition(lambda self: self.asked)
    @rule(target=payments, choice=choices)
    def ask_again(self, choice: int) -> Any:
        """Word for word, under the same key, however long after."""
        ask, how = self.asked[choice % len(self.asked)]
        made = ask(self, **how)
        return multiple() if made is None else made

    @rule(
        number=st.sampled_from(list(PATIENTS)),
        patient=st.sampled_from(["patient", "other"]),
        fee=st.sampled_from([None, None, 5000]),
    )
    def put_consultation(self, number: int, patient: str, fee: int | None) -> None:
        expected = self._judge(lambda: self.model.put_consultation(number, patient, fee))
        body = {"patient_id": self._person(patient).id, "fee": fee}
        answer = self.service.people.booking.put(f"/consultations/{number}", body)
        if isinstance(expected, Refusal):
            self._compare(answer, expected)
        else:
            assert answer.status_code == 200, answer.text
        self._compare_consultations()

    # One of three alone: nothing more is paid of what is closed, and little would be left to do.
    @rule(
        who=st.sampled_from(["booking", "booking", ADMIN, "patient"]), number=st.sampled_from([3, 3, 9]), weather=line
    )
    def close(self, who: str, number: int, weather: Weather) -> None:
        self.touched = self.model.active(number)
        expected = self._judge(lambda: self.model.close(who, number, weather))
        with self._stripe(weather, INTENTS):
            answer = self._person(who).post(f"/consultations/{number}/close")
        if isinstance(expected, Refusal):
            self._compare(answer, expected)
        else:
            assert answer.status_code == 200, answer.text
        self._compare_consultations()

    @rule(who=whoever, key=st.sampled_from(["k1", "k2", "k3"]))
    def ask_what_a_key_did(self, who: str, key: str) -> None:
        """Whoever else used the same key, it is another one."""
        known = self.model.keys.get((who, key))
        answer = self._person(who).get(f"/idempotency-keys/{key}")
        if known is None:
            assert (answer.status_code, problem_of(answer)) == (404, "idempotency-key-not-found")
            return
        shown = answer.json["data"]
        assert (shown["operation"], shown["status"]) == (known.operation, known.status)
        assert shown["payment_id"] == known.payment.id
        assert shown["refund_id"] == (known.refund and known.refund.id)
        assert (shown["first_response"] is not None) == known.keeps_its_answer

    @rule(who=whoever, payment=payments)
    def look(self, who: str, payment: Payment) -> None:
        expected = 200 if who in (ADMIN, payment.patient) else 403
        assert self._person(who).get(f"/payments/{payment.id}").status_code == expected

    # What somebody with a payment link does, who has no password: as the patient, of one consultation

    @rule(target=links, number=st.sampled_from([1, 1, 2]))
    def open_a_link(self, number: int) -> Any:
        consultation = self.model.consultations[number]
        link = Link(number, consultation.patient, consultation.patients)
        self.payers[link] = payer_of(self.service.people, number, of=self._person(consultation.patient))
        return link

    @rule(target=payments, link=links, what=by_link, key=keys, payment=payments, number=st.sampled_from([1, 1, 1, 2]))
    def ask_by_link(self, link: Link, what: str, key: str | None, payment: Payment, number: int) -> Any:
        """Of the payment; or, to create one, of a consultation: of any of them, so often of another one's."""
        payer, model_key, fine = self.payers[link], self._model_key(key), Weather.FINE
        number = number if what == "create" else payment.consultation
        missing = "consultation-not-found" if what == "create" else "payment-not-found"

        def judged() -> Any:
            who = self.model.by_link(link, number, missing)
            judges: dict[str, Callable[[], Any]] = {
                "create": lambda: self.model.create(who, model_key, number, 5000, "stripe"),
                "checkout": lambda: self.model.checkout(who, model_key, payment, fine),
                "cancel": lambda: self.model.cancel(who, model_key, payment, Belief(), fine),
                "look": lambda: self.model.get_owned(who, payment),
            }
            return judges[what]()

        expected = self._judge(judged)
        headers = headers_for(key)
        if what == "create":
            answer = payer.pay(number, key)
        elif what == "look":
            answer = payer.get(f"/payments/{payment.id}")
        else:
            answer = payer.post(f"/payments/{payment.id}/{what}", headers=headers)
        self._learn_references()
        if isinstance(expected, Refusal | ModelResponse):
            self._compare(answer, expected)
        else:
            assert answer.status_code == 200, answer.text
        is_made = what == "create" and isinstance(expected, ModelResponse) and expected.made is not None
        return expected.payment if is_made else multiple()

    @rule(link=links)
    def revoke(self, link: Link) -> None:
        """Once or again; from then on it does nothing."""
        link.is_revoked = True
        assert self.payers[link].revoke().status_code == 204

    # What customers do at Stripe, and people at its dashboard; each is told by an event, which may come at any time

    @rule(target=events, payment=payments, what=st.sampled_from(["pay", "pay", "pay", "start", "decline", "cancel"]))
    def at_stripe(self, payment: Payment, what: str) -> Any:
        status = self.model.stripe.sessions.get(payment)
        reference = self.model.stripe.references.get(payment, "")
        if status not in ("open", "processing") or (what == "cancel" and status != "open"):
            return multiple()
        fake, sessions = self.service.fake, self.model.stripe.sessions
        act, kind, after = {
            "pay": (fake.pay, "succeeded", "succeeded"),
            "start": (fake.start_processing, "processing", "processing"),
            "decline": (fake.decline, "payment_failed", "open"),
            "cancel": (fake.cancel, "canceled", "canceled"),
        }[what]
        assert fake.intents[reference]["status"] in PAYABLE
        act(reference)
        sessions[payment] = after
        return (payment, kind, None, fake.intent_event(kind, reference))

    @rule(target=events, payment=payments)
    def tell_of_a_session(self, payment: Payment) -> Any:
        """An event of what is, and was told before perhaps."""
        status = self.model.stripe.sessions.get(payment)
        if status not in ("processing", "succeeded", "canceled"):
            return multiple()
        return (payment, status, None, self.service.fake.intent_event(status, self.model.stripe.references[payment]))

    @precondition(lambda self: any(p.received and p.is_by_card for p in self.model.payments))
    @rule(target=events, choice=choices, amount=st.sampled_from([1000, 2500, 5000]))
    def refund_in_the_dashboard(self, choice: int, amount: int) -> Any:
        paid = [p for p in self.model.payments if p.received and p.is_by_card]
        payment = paid[choice % len(paid)]
        if amount > self.model.stripe.left(payment):
            return multiple()
        refund = Refund(amount, is_told=False, made_elsewhere=True)
        self.model.stripe.refund_in_dashboard(payment, refund)
        made = self.service.fake.refund_in_dashboard(self.model.stripe.references[payment], amount * 100)
        refund.reference = made["id"]
        return (payment, "succeeded", refund, self.service.fake.refund_event("created", made["id"]))

    @precondition(lambda self: self.model.stripe.refunds)
    @rule(target=events, choice=choices, status=st.sampled_from(["succeeded", "failed", None]))
    def settle_a_refund(self, choice: int, status: str | None) -> Any:
        """A bank may send back even what had succeeded; None only tells of it once more."""
        payment, refund = self.model.stripe.refunds[choice % len(self.model.stripe.refunds)]
        reference = self._reference_of(payment, refund)
        if status is not None and refund.at_stripe != "failed":
            self.service.fake.settle_refund(reference, status)
            refund.at_stripe = status
        assert refund.at_stripe is not None
        kind = "failed" if refund.at_stripe == "failed" else "updated"
        return (payment, refund.at_stripe, refund, self.service.fake.refund_event(kind, reference))

    @precondition(lambda self: "succeeded" in self.model.stripe.sessions.values())
    @rule(
        target=events,
        choice=choices,
        amount=st.sampled_from([5000, 5000, 1000]),
        status=st.sampled_from(["warning_needs_response", "needs_response", "needs_response"]),
    )
    def dispute_at_the_bank(self, choice: int, amount: int, status: str) -> Any:
        paid = [payment for payment, status in self.model.stripe.sessions.items() if status == "succeeded"]
        payment = paid[choice % len(paid)]
        dispute_id = self.service.fake.dispute(self.model.stripe.references[payment], amount * 100, status=status)
        dispute = Dispute(dispute_id, amount, OF_STRIPE[status])
        self.model.stripe.disputes.append((payment, dispute))
        return (payment, dispute.at_stripe, dispute, self.service.fake.dispute_event("created", dispute_id))

    @precondition(lambda self: self.model.stripe.disputes)
    @rule(target=events, choice=choices, status=st.sampled_from([*OF_STRIPE, "won", "won"]))
    def move_a_dispute(self, choice: int, status: str) -> Any:
        """Whatever the bank does next; a dispute may even be said to be where it was before."""
        payment, dispute = self.model.stripe.disputes[choice % len(self.model.stripe.disputes)]
        self.service.fake.move_dispute(dispute.reference, status)
        dispute.at_stripe = OF_STRIPE[status]
        return (payment, dispute.at_stripe, dispute, self.service.fake.dispute_event("updated", dispute.reference))

    @rule()
    def what_was_late_arrives_at_stripe(self) -> None:
        self.model.stripe.apply_late()
        self.service.fake.apply_late()

    @rule(event=events)
    def hear(self, event: tuple[Payment, str, Refund | Dispute | None, Wire]) -> None:
        payment, what, about, wire = event
        self.touched = payment
        self.model.hear(wire["id"], payment, what, about)
        self.service.hear(wire)

    # What time does, and timers

    @rule(payment=payments)
    def time_is_over(self, payment: Payment) -> None:
        payment.is_overdue = True
        self.service.make_overdue(payment.id)

    @rule(weather=line)
    def expire(self, weather: Weather) -> None:
        self.model.expire(weather)
        with self._stripe(weather, INTENTS):
            self.service.expire()

    @rule(weather=line)
    def resume(self, weather: Weather) -> None:
        self.model.resume(weather)
        with self._stripe(weather, INTENTS), self._stripe(weather, REFUNDS):
            self.service.resume()

    @precondition(lambda self: self.model.keys)
    @rule(choice=choices)
    def a_day_passes_for_a_key(self, choice: int) -> None:
        named = [(who, key) for who, key in self.model.keys if not key.startswith("made-")]
        if named:
            who, key = named[choice % len(named)]
            self.model.keys[who, key].is_old = True
            self.service.make_old(self._person(who).id, key)

    @rule()
    def prune(self) -> None:
        self.model.prune()
        self.service.prune()

    @rule()
    def a_moment_passes(self) -> None:
        """Nothing happens. Hypothesis begins with the simplest way it knows, which is to choose this each time."""
        self.nothing_happened = True

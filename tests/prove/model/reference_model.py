"""What the contract says must happen, in plain Python: without a database, HTTP or a clock.

Each method of ``ReferenceModel`` is a request, a command or an event of Stripe's. It checks in the order of the
contract, changes the state, and returns the expected response. It raises a refusal, which has changed nothing unless
the contract says otherwise (money that came too late is kept).
"""

from typing import NoReturn

from tests.prove.model.records import (
    ACTIVE,
    ADMIN,
    APPROVAL_ABOVE,
    BLOCKING,
    DISPUTE_STATUSES,
    LEAST_AMOUNT,
    OPEN,
    PAID,
    REFUNDABLE,
    UNPAID,
    Belief,
    Consultation,
    Dispute,
    Key,
    Link,
    ModelResponse,
    Payment,
    Refund,
    Refusal,
)
from tests.prove.model.stripe_account import StripeAccount, Weather


class ReferenceModel:
    """All that is known, of the service and of Stripe."""

    def __init__(self, patients: dict[int, str]) -> None:
        self.consultations = {number: Consultation(patient) for number, patient in patients.items()}
        self.payments: list[Payment] = []
        self.keys: dict[tuple[str, str], Key] = {}
        self.stripe = StripeAccount()
        self._heard: set[str] = set()

    # What every request has in common

    def active(self, consultation: int) -> Payment | None:
        """M1: there is at most one."""
        found = [p for p in self.payments if p.consultation == consultation and p.status in ACTIVE]
        assert len(found) <= 1
        return found[0] if found else None

    def get_owned(self, who: str, payment: Payment | None) -> Payment:
        if payment is None:
            raise Refusal(404, "payment-not-found")
        if who not in (ADMIN, payment.patient):
            raise Refusal(403, "forbidden")
        return payment

    def used(self, who: str, key: str, operation: str, *request: object) -> Key | None:
        """M4: the same request under the same key is a replay, another one is refused."""
        known = self.keys.get((who, key))
        if known is not None and (known.operation, known.request) != (operation, request):
            raise Refusal(422, "idempotency-key-reused")
        return known

    def replay(self, known: Key) -> ModelResponse:
        if known.is_pruned:
            return ModelResponse(200, known.payment, known.refund, first=known)
        if known.refund is not None:
            outcome = {"succeeded": 200, "failed": 402}.get(known.refund.status, 202)
            return ModelResponse(outcome, known.payment, known.refund, first=known)
        return ModelResponse(201 if known.operation == "create" else 200, known.payment, first=known)

    def keep(self, status: int, who: str, key: str, done: Key) -> ModelResponse:
        self.keys[who, key] = done
        return ModelResponse(status, done.payment, done.refund, made=done)

    def require(self, belief: Belief) -> None:
        if belief.if_match is False:
            raise Refusal(412, "precondition-failed")
        if belief.expected_version is False:
            raise Refusal(409, "version-conflict")

    def by_link(self, link: Link, consultation: int | None, missing: str) -> str:
        """M11: the patient for whom a link acts, in its own consultation; nothing else exists for it."""
        if link.is_revoked or self.consultations[link.consultation].patients != link.patients:
            raise Refusal(401, "not-authenticated")
        if consultation != link.consultation:
            raise Refusal(404, missing)
        return link.patient

    # Requests

    def put_consultation(self, number: int, patient: str, fee: int | None) -> None:
        found = self.consultations[number]
        if found.is_closed:
            raise Refusal(409, "consultation-closed")
        others = patient != found.patient and any(p.consultation == number for p in self.payments)
        if others or (fee != found.fee and self.active(number) is not None):
            raise Refusal(409, "consultation-has-payments")
        found.patients += patient != found.patient
        found.patient, found.fee = patient, fee

    def close(self, who: str, number: int, weather: Weather) -> None:
        """Cancel what is pending, the session first; what is paid stays, and what is on its way stands in the way."""
        if who == "patient":
            raise Refusal(403, "forbidden")
        if number not in self.consultations:
            raise Refusal(404, "consultation-not-found")
        consultation = self.consultations[number]
        payment = self.active(number)
        if not consultation.is_closed and payment is not None and payment.status == "pending":
            self._cancel_for_closing(payment, weather)
        if payment is not None and payment.status == "processing":
            raise Refusal(409, "invalid-transition")
        consultation.is_closed = True

    def _cancel_for_closing(self, payment: Payment, weather: Weather) -> None:
        try:
            self._end_session(payment, weather)
        except Refusal as refusal:
            if refusal.status == 503:
                raise
            return  # paid in this moment, or on its way
        payment.status = "cancelled"
        payment.version += 1

    def create(self, who: str, key: str, number: int, amount: int, method: str) -> ModelResponse:
        if amount < LEAST_AMOUNT:
            raise Refusal(422, "validation-failed")
        if number not in self.consultations:
            raise Refusal(404, "consultation-not-found")
        consultation = self.consultations[number]
        if who != consultation.patient:
            raise Refusal(403, "forbidden")
        known = self.used(who, key, "create", number, amount, method)
        if known is not None:
            return self.replay(known)
        if self.active(number) is not None:
            raise Refusal(409, "active-payment-exists")
        if consultation.is_closed:
            raise Refusal(409, "consultation-closed")
        if consultation.fee not in (None, amount):
            raise Refusal(422, "validation-failed")
        payment = Payment(number, who, amount, method)
        self.payments.append(payment)
        return self.keep(201, who, key, Key("create", (number, amount, method), payment))

    def checkout(self, who: str, key: str, payment: Payment | None, weather: Weather) -> ModelResponse:
        if who == ADMIN:
            raise Refusal(403, "forbidden")
        payment = self.get_owned(who, payment)
        known = self.used(who, key, "checkout", payment)
        if known is None and payment.status not in UNPAID:
            raise Refusal(409, "invalid-transition")
        if payment.is_by_card:
            self._open_session(payment, weather)
        payment.has_session = True
        return self.replay(known) if known else self.keep(200, who, key, Key("checkout", (payment,), payment))

    def _open_session(self, payment: Payment, weather: Weather) -> None:
        find = self.stripe.find_session if payment.has_session else self.stripe.open_session
        status = find(payment, weather)
        if status is None:
            raise Refusal(503, "gateway-unavailable")
        if status == "refused":
            raise Refusal(502, "gateway-refused")
        if payment.status in UNPAID and status in ("succeeded", "canceled"):
            self._follow(payment, status)  # what Stripe says is true, whatever was asked for
            raise Refusal(409, "invalid-transition")

    def confirm(
        self, who: str, key: str, payment: Payment | None, *, transaction: str, belief: Belief, weather: Weather
    ) -> ModelResponse:
        payment = self.get_owned(who, payment)
        if not payment.is_by_card and who != ADMIN:
            raise Refusal(403, "forbidden")
        known = self.used(who, key, "confirm", payment, transaction)
        if known is not None:
            return self.replay(known)
        if payment.status in PAID and payment.transaction == transaction:
            return ModelResponse(200, payment, first=Key("confirm", (), payment))  # a retry by its transaction
        self.require(belief)
        if payment.status not in (*UNPAID, "expired", "failed"):
            raise Refusal(409, "invalid-transition")
        if payment.received:  # came too late, and is kept for review
            self._refuse_late(payment)
        if payment.is_by_card:
            self._verify(payment, transaction, weather)
        if any(other.transaction == transaction and other.method == payment.method for other in self.payments):
            raise Refusal(409, "transaction-already-used")  # M5
        self._receive(payment, transaction)
        if payment.status not in PAID:
            self._refuse_late(payment)
        return self.keep(200, who, key, Key("confirm", (payment, transaction), payment))

    def _verify(self, payment: Payment, transaction: str, weather: Weather) -> None:
        if weather.is_silent and transaction.startswith("pi_"):
            raise Refusal(503, "gateway-unavailable")
        if not self.stripe.has_paid(payment, transaction):
            raise Refusal(402, "payment-not-verified")

    def _refuse_late(self, payment: Payment) -> NoReturn:
        if self.active(payment.consultation) is not None:
            raise Refusal(409, "active-payment-exists")
        is_closed = self.consultations[payment.consultation].is_closed
        raise Refusal(409, "consultation-closed" if is_closed else "invalid-transition")

    def cancel(self, who: str, key: str, payment: Payment | None, belief: Belief, weather: Weather) -> ModelResponse:
        payment = self.get_owned(who, payment)
        known = self.used(who, key, "cancel", payment)
        if known is not None:
            return self.replay(known)
        self.require(belief)
        if payment.status != "pending":
            raise Refusal(409, "invalid-transition")
        self._end_session(payment, weather)
        payment.status = "cancelled"
        payment.version += 1
        return self.keep(200, who, key, Key("cancel", (payment,), payment))

    def _end_session(self, payment: Payment, weather: Weather) -> None:
        """At the gateway first: money that came there, or is on its way, is not to be given up."""
        if not payment.is_by_card or not payment.has_session:
            return
        status = self.stripe.end_session(payment, weather)
        if status is None:
            raise Refusal(503, "gateway-unavailable")
        if status in ("succeeded", "processing"):
            self._follow(payment, status)
            raise Refusal(409, "invalid-transition")

    def refund(
        self,
        who: str,
        key: str,
        payment: Payment | None,
        *,
        amount: int | None,
        expects: int | None,
        may_repeat: bool,
        belief: Belief,
        weather: Weather,
    ) -> ModelResponse:
        if who != ADMIN:
            raise Refusal(403, "forbidden")
        payment = self.get_owned(who, payment)
        known = self.used(who, key, "refund", payment, amount)
        if known is not None:
            return self.replay(known)
        self.require(belief)
        if payment.is_disputed:
            raise Refusal(409, "payment-disputed")  # M12
        if expects not in (None, payment.left):
            raise Refusal(409, "refundable-changed")
        same = [each for each in payment.refunds if each.amount == amount and not each.made_elsewhere]
        if not may_repeat and any(each.status != "failed" for each in same):
            raise Refusal(409, "refund-repeated")
        if payment.status not in REFUNDABLE and not (payment.needs_review and payment.received):
            raise Refusal(409, "invalid-transition")
        if not 0 < (amount or payment.left) <= payment.left:
            raise Refusal(422, "refund-exceeds-balance")  # M3
        refund = Refund(amount or payment.left, by_hand=not payment.is_by_card)
        if payment.refunded + payment.reserved + refund.amount > APPROVAL_ABOVE:
            refund.status = "requested"
        payment.refunds.append(refund)
        payment.version += 1
        if refund.status != "requested":
            self._send(payment, refund, weather)
        outcome = {"succeeded": 200, "failed": 402}.get(refund.status, 202)
        return self.keep(outcome, who, key, Key("refund", (payment, amount), payment, refund))

    def _send(self, payment: Payment, refund: Refund, weather: Weather) -> None:
        if not refund.by_hand:
            self._settle(payment, refund, self.stripe.take_refund(payment, refund, weather))

    def approve(self, who: str, key: str, payment: Payment, refund: Refund, weather: Weather) -> ModelResponse:
        self._require_requested(who, refund)
        if payment.is_disputed:
            raise Refusal(409, "payment-disputed")  # M12
        refund.status = "pending"
        payment.version += 1
        self._send(payment, refund, weather)
        outcome = {"succeeded": 200, "failed": 402}.get(refund.status, 202)
        return self.keep(outcome, who, key, Key("approve-refund", (refund,), payment, refund))

    def reject(self, who: str, key: str, payment: Payment, refund: Refund) -> ModelResponse:
        self._require_requested(who, refund)
        self._settle(payment, refund, "failed")
        return self.keep(200, who, key, Key("reject-refund", (refund,), payment, refund))

    def _require_requested(self, who: str, refund: Refund) -> None:
        if who == ADMIN:  # who has requested them all
            raise Refusal(403, "second-person-needed")
        if refund.status != "requested":
            raise Refusal(409, "refund-not-requested")

    def settle_by_hand(self, who: str, key: str, payment: Payment, refund: Refund, transfer: str) -> ModelResponse:
        """One transfer returns one refund, and is recorded again without an effect."""
        done = Key("settle-refund", (refund, transfer), payment, refund)
        if refund.transfer == transfer:
            return ModelResponse(200, payment, refund, first=done)
        if payment.is_disputed:
            raise Refusal(409, "payment-disputed")  # M12
        if refund.transfer is not None:
            raise Refusal(409, "refund-already-sent")
        if not refund.by_hand or refund.status != "pending":
            raise Refusal(409, "refund-not-to-be-sent")
        if any(each.transfer == transfer for other in self.payments for each in other.refunds):
            raise Refusal(409, "transfer-already-used")
        refund.transfer = transfer
        self._settle(payment, refund, "succeeded")
        return self.keep(200, who, key, done)

    # Commands

    def expire(self, weather: Weather) -> None:
        for payment in self.payments:
            if payment.status == "pending" and payment.is_overdue:
                self._give_up(payment, "expired", weather)

    def resume(self, weather: Weather) -> None:
        for payment in self.payments:
            for refund in payment.refunds:
                if refund.status in ("pending", "unknown") and refund.is_told and not refund.by_hand:
                    may_be_sent = not payment.is_disputed  # M12
                    told = self.stripe.find_or_take_refund(payment, refund, weather, may_be_sent=may_be_sent)
                    self._settle(payment, refund, told)
            if payment.status == "processing" and not weather.is_silent:
                status = self.stripe.sessions[payment]
                if status in ("succeeded", "canceled"):
                    self._follow(payment, status)
                elif status == "open" and payment.is_overdue:
                    self._give_up(payment, "failed", weather)

    def _give_up(self, payment: Payment, status: str, weather: Weather) -> None:
        try:
            self._end_session(payment, weather)
        except Refusal:
            return
        payment.status = status
        payment.version += 1

    def prune(self) -> None:
        for key in self.keys.values():
            key.is_pruned = key.is_pruned or (key.is_old and key.keeps_its_answer)

    # What Stripe says, in whatever order

    def hear(self, event_id: str, payment: Payment, what: str, about: Refund | Dispute | None = None) -> None:
        """Take an event in: once."""
        if event_id in self._heard:
            return
        self._heard.add(event_id)
        if isinstance(about, Refund):
            self._hear_of_refund(payment, about, what)
        elif isinstance(about, Dispute):
            self._hear_of_dispute(payment, about, what)
        elif what != "payment_failed":  # a declined attempt is no end
            payment.has_session = True
            self._follow(payment, what)

    def _follow(self, payment: Payment, what: str) -> None:
        if what == "succeeded":
            self._receive(payment, self.stripe.references[payment])
        elif what == "processing" and payment.status == "pending":
            payment.status = "processing"
            payment.version += 1
        elif what == "canceled" and payment.status in UNPAID:
            payment.status = "cancelled"
            payment.version += 1

    def _receive(self, payment: Payment, transaction: str) -> None:
        if payment.received:
            return
        is_open = not self.consultations[payment.consultation].is_closed
        is_free = is_open and payment.status in ("expired", "failed") and self.active(payment.consultation) is None
        if payment.status in UNPAID or is_free:
            payment.status = "completed"
        else:
            payment.needs_review = True
        payment.transaction, payment.received = transaction, payment.amount
        payment.version += 1

    def _hear_of_refund(self, payment: Payment, refund: Refund, what: str) -> None:
        if not refund.is_told:  # made elsewhere, and new to us
            refund.is_told = True
            if what != "failed":
                refund.excess = refund.amount - min(refund.amount, payment.left)
                payment.needs_review = payment.needs_review or refund.excess > 0
                payment.version += 1
            refund.status = "pending"
            payment.refunds.append(refund)
            if what == "failed":
                refund.status = "failed"
            elif what == "succeeded":
                refund.status = "succeeded"
                self._count(payment, refund)
            if what != "failed" and payment.is_disputed:
                payment.needs_review = payment.review_sticky = True
        elif refund.status != "failed":
            self._settle(payment, refund, what)

    def _hear_of_dispute(self, payment: Payment, dispute: Dispute, status: str) -> None:
        """Nothing moves back, and refunds are blocked as long as one dispute is open or lost."""
        is_known, was_disputed = dispute in payment.disputes, payment.is_disputed
        was_blocking = dispute.status in BLOCKING
        if is_known and DISPUTE_STATUSES.index(status) <= DISPUTE_STATUSES.index(dispute.status):
            if (dispute.status, status) == ("lost", "won"):  # which was first, no event says
                payment.needs_review = payment.review_sticky = True
                payment.version += 1
            return
        if not is_known:
            payment.disputes.append(dispute)
        dispute.status = status
        payment.version += 1
        if status in BLOCKING and not was_disputed:
            # With a refund that was sent before, the patient may get money back twice.
            requested = sum(refund.amount for refund in payment.refunds if refund.status == "requested")
            payment.review_sticky |= payment.left + requested < min(payment.received, dispute.amount)
        if status in (*BLOCKING, "inquiry"):
            if status != "under_review" or not was_blocking:  # the clinic has answered, and waits
                self._review_dispute(payment)
        else:
            self._end_dispute(payment)

    def _review_dispute(self, payment: Payment) -> None:
        if payment.needs_review and not payment.review_of_dispute and _has_reversal(payment):
            payment.review_sticky = True
        payment.needs_review = payment.review_of_dispute = True

    def _end_dispute(self, payment: Payment) -> None:
        """The review ends with it, unless it has another reason."""
        if payment.review_of_dispute and not any(each.status in (*BLOCKING, "inquiry") for each in payment.disputes):
            payment.review_of_dispute = False
            payment.needs_review = payment.review_sticky or any(refund.excess for refund in payment.refunds)
        if payment.status not in PAID and payment.left and not payment.is_disputed:
            payment.needs_review = True

    # Refunds

    def _settle(self, payment: Payment, refund: Refund, what: str) -> None:
        """Nothing moves back: only an open refund succeeds, and what failed stays failed."""
        if what == "failed":
            if refund.status == "succeeded":
                payment.needs_review = True
                payment.review_sticky |= payment.review_of_dispute  # two reasons: only staff end it
            refund.status, refund.excess = "failed", 0
            payment.version += 1
            self._make_room(payment)
        elif refund.status in OPEN and what == "succeeded":
            refund.status = "succeeded"
            payment.version += 1
            self._count(payment, refund)
        elif refund.status in OPEN:
            # What Stripe has accepted, its silence does not make unknown.
            refund.status = "pending" if what == "pending" else refund.status if what == "silent" else what

    def _count(self, payment: Payment, refund: Refund) -> None:
        """The money is back; the payment's status follows, but in review only the amounts move."""
        if payment.status in REFUNDABLE and refund.counted:
            payment.status = "refunded" if payment.refunded == payment.received else "partially_refunded"
        if payment.refunded == payment.received and not any(each.excess for each in payment.refunds):
            payment.needs_review = payment.review_sticky or payment.review_of_dispute

    def _make_room(self, payment: Payment) -> None:
        """A refund came to nothing: those made elsewhere that did not fit may fit now."""
        had_excess = False
        for refund in payment.refunds:
            if refund.excess:
                had_excess = True
                refund.excess -= min(refund.excess, payment.left)
                if refund.status == "succeeded":
                    self._count(payment, refund)
        is_settled = had_excess and not any(refund.excess for refund in payment.refunds)
        if is_settled and payment.status in PAID and not _has_reversal(payment):
            payment.needs_review = payment.review_sticky or payment.review_of_dispute


def _has_reversal(payment: Payment) -> bool:
    return any(refund.status == "failed" and refund.at_stripe == "failed" for refund in payment.refunds)

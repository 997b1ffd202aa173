"""What the model knows of: consultations, payments, refunds, keys; and what may be answered. Amounts in major units."""

from dataclasses import dataclass, field

ACTIVE = ("pending", "processing", "completed", "partially_refunded")
UNPAID = ("pending", "processing")
PAID = ("completed", "partially_refunded", "refunded")
REFUNDABLE = ("completed", "partially_refunded")
OPEN = ("requested", "pending", "unknown")
# With which more than this is returned of one payment, a refund waits for a second person.
APPROVAL_ABOVE = 4000
# In the order in which a bank goes: none of them moves back.
DISPUTE_STATUSES = ("inquiry", "inquiry_closed", "needs_response", "under_review", "won", "lost")
BLOCKING = ("needs_response", "under_review", "lost")
LEAST_AMOUNT = 1000
ADMIN = "admin"
# Another admin, who approves what the first one has requested.
SECOND = "second"


@dataclass(eq=False)
class Consultation:
    patient: str
    fee: int | None = None
    is_closed: bool = False
    # How many it has had, one after the other; one who comes back counts again.
    patients: int = 1


@dataclass(eq=False)
class Link:
    """A payment link of a consultation; whoever has it acts for the patient, until there is another one.

    ``patients``: how many the consultation had had when the link was made.
    """

    consultation: int
    patient: str
    patients: int
    is_revoked: bool = False


@dataclass(eq=False)
class Refund:
    amount: int
    status: str = "pending"
    # Made at Stripe's dashboard, it may be more than is left of the money: so much of it is not counted.
    excess: int = 0
    id: int = 0
    # Stripe's own word, and name for it; None as long as it has not heard of it.
    at_stripe: str | None = None
    reference: str | None = None
    # One made elsewhere is not, at first.
    is_told: bool = True
    made_elsewhere: bool = False
    # Staff send the money, by this transfer.
    by_hand: bool = False
    transfer: str | None = None

    @property
    def counted(self) -> int:
        return self.amount - self.excess


@dataclass(eq=False)
class Dispute:
    """``status`` is the one that we heard of last; ``at_stripe`` is Stripe's own."""

    reference: str
    amount: int
    at_stripe: str
    status: str = ""


@dataclass(eq=False)
class Payment:
    consultation: int
    patient: str
    amount: int
    method: str
    status: str = "pending"
    version: int = 0
    transaction: str | None = None
    received: int = 0
    needs_review: bool = False
    is_overdue: bool = False
    # Whether we know of its session: its checkout was answered, or an event told of it.
    has_session: bool = False
    refunds: list[Refund] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    # Only staff can end the review; a dispute is a reason for it.
    review_sticky: bool = False
    review_of_dispute: bool = False
    id: int = 0

    def __repr__(self) -> str:
        return f"payment_{self.id}"

    @property
    def is_by_card(self) -> bool:
        return self.method == "stripe"

    @property
    def refunded(self) -> int:
        return sum(refund.counted for refund in self.refunds if refund.status == "succeeded")

    @property
    def left(self) -> int:
        return self.received - sum(refund.counted for refund in self.refunds if refund.status != "failed")

    @property
    def reserved(self) -> int:
        return sum(refund.counted for refund in self.refunds if refund.status in OPEN)

    @property
    def is_disputed(self) -> bool:
        """M12: nothing is refunded."""
        return any(dispute.status in BLOCKING for dispute in self.disputes)

    @property
    def invoice(self) -> str:
        if self.status in UNPAID:
            return "pending"
        return {"refunded": "refunded"}.get(self.status, "paid" if self.status in PAID else "void")


@dataclass(eq=False)
class Key:
    """What was done under a key, and what was answered first."""

    operation: str
    request: tuple[object, ...]
    payment: Payment
    refund: Refund | None = None
    body: bytes | None = None
    is_old: bool = False
    is_pruned: bool = False

    @property
    def status(self) -> str:
        return self.payment.status if self.refund is None else self.refund.status

    @property
    def keeps_its_answer(self) -> bool:
        return self.operation != "checkout" and not self.is_pruned  # a session's answer holds a secret


@dataclass(frozen=True)
class Belief:
    """What a caller believes of the version: by If-Match, by ``expected_version``; right, wrong, or nothing (None)."""

    if_match: bool | None = None
    expected_version: bool | None = None


class Refusal(Exception):
    """The HTTP status, and the end of the problem's type."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)
        self.status, self.code = status, code


@dataclass(frozen=True)
class ModelResponse:
    """``first`` is set where the first answer is given again, ``made`` where this one is kept under a new key."""

    status: int
    payment: Payment
    refund: Refund | None = None
    first: Key | None = None
    made: Key | None = None

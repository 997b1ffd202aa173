"""Where an attack takes place: people and consultations of its own, and a client that asks for them."""

from dataclasses import dataclass, field
from itertools import count
from random import Random

from flask import current_app

from payments_app import money
from payments_app.accounts import auth
from payments_app.accounts.models import Role
from payments_app.proof import repository
from payments_app.proof.client import Client, Request
from payments_app.proof.own_server import Workers
from payments_app.proof.repository import PaymentSnapshot

# Carried out by hand, so that staff's word is all that moves.
METHOD = "gcash"


class WrongTarget(Exception):
    """The service that is asked does not answer, or does not work on the database that was written to."""


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """How many ask at once, and how many new payments each user of them may ask for by RATELIMIT_PAYMENTS."""

    clients: int
    share: int

    @property
    def patients(self) -> int:
        """So many that each stays within the share."""
        return -(-self.clients // self.share)

    def clicks_of(self, patient: int) -> int:
        """How many of the clients that patient is."""
        return self.clients // self.patients + (patient < self.clients % self.patients)


@dataclass(frozen=True, slots=True)
class Patient:
    token: str = field(repr=False)
    consultations: list[int]


@dataclass(slots=True)
class Scenario:
    """One round's; ``chance`` is all that its seed decides, ``workers`` those that may be killed."""

    name: str
    first_consultation: int
    client: Client
    load: LoadProfile
    chance: Random
    workers: Workers | None = None
    staff_token: str = field(init=False, repr=False)
    amount_minor: int = field(init=False)
    consultations: list[int] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        settings = current_app.config["SETTINGS"]
        least, most = settings.payment_min_amount_minor, settings.payment_max_amount_minor
        self.amount_minor = self.chance.randint(least, min(most, 5 * least))
        self.staff_token = self._add_user(Role.ADMIN)
        watched = self.add_patient(consultations=1)
        (consultation,) = watched.consultations
        responses = self.client.try_once(Request("GET", f"/consultations/{consultation}", watched.token))
        if responses.silence:  # nobody listens there, or the certificate is not believed
            raise WrongTarget(f"{self.client.url} does not answer: {responses.silence}")
        if responses.status != 200 or responses.data.get("id") != consultation:  # noqa: PLR2004  # OK
            raise WrongTarget(
                f"{responses} of what was just written: is it another deployment's, or has it other secrets?"
            )

    def add_patient(self, *, consultations: int) -> Patient:
        ids = [self.first_consultation + next(self._numbers) for _ in range(consultations)]
        self.consultations += ids
        return Patient(self._add_user(Role.PATIENT, ids), ids)

    def _add_user(self, role: Role, consultations: list[int] | None = None) -> str:
        currency = current_app.config["SETTINGS"].payment_currency
        return auth.issue(repository.add_user(self.name, role, consultations=consultations or [], currency=currency))

    @property
    def part_minor(self) -> int:
        """30 % of the amount: three such refunds fit, and a fourth does not."""
        return self.amount_minor * 3 // 10

    # What is asked

    def new_key(self) -> str:
        return f"prove-{self.name}-{self.chance.getrandbits(64):016x}"

    def paying(self, patient: Patient, consultation_id: int, *, key: str | None = None) -> Request:
        amount = money.to_text(self.amount_minor)
        body = {"consultation_id": consultation_id, "amount": amount, "payment_method": METHOD}
        return Request("POST", "/payments", patient.token, key or self.new_key(), body)

    def confirming(self, payment_id: int, transaction_id: str) -> Request:
        body = {"transaction_id": transaction_id}
        return Request("POST", f"/payments/{payment_id}/confirm", self.staff_token, self.new_key(), body)

    def cancelling(self, payment_id: int) -> Request:
        return Request("POST", f"/payments/{payment_id}/cancel", self.staff_token, self.new_key(), {})

    def refunding(self, payment_id: int, *, key: str | None = None) -> Request:
        body = {"amount": money.to_text(self.part_minor)}
        return Request("POST", f"/payments/{payment_id}/refund", self.staff_token, key or self.new_key(), body)

    def new_transaction(self) -> str:
        return f"PROVE-{self.name}-{self.chance.getrandbits(64):016x}"

    # What came of it

    def kept(self, *consultations: int) -> list[PaymentSnapshot]:
        return repository.look(consultations)

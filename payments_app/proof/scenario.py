"""The surroundings of a round of attacks: its users and consultations, and the requests of its client."""

from dataclasses import dataclass, field
from itertools import count
from random import Random

from flask import current_app

from payments_app import money
from payments_app.accounts import auth
from payments_app.accounts.models import Role
from payments_app.gateways.registry import can_be_asked, payment_methods
from payments_app.proof import repository
from payments_app.proof.client import Client, Request
from payments_app.proof.own_server import Workers
from payments_app.proof.repository import PaymentSnapshot


def method_by_hand() -> str | None:
    """A payment method by which no money moves here, because staff only confirm it; None if there is none."""
    return next((method.code for method in payment_methods() if not can_be_asked(method.gateway)), None)


class WrongTarget(Exception):
    """The service does not respond, or uses another database than this command."""


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """``clients``: simultaneous requests. ``share``: new payments that RATELIMIT_PAYMENTS allows each user."""

    clients: int
    share: int

    @property
    def patients(self) -> int:
        """The number of patients with which each stays within the share."""
        return -(-self.clients // self.share)

    def clicks_of(self, patient: int) -> int:
        """How many of the requests are this patient's."""
        return self.clients // self.patients + (patient < self.clients % self.patients)


@dataclass(frozen=True, slots=True)
class Patient:
    token: str = field(repr=False)
    consultations: list[int]


@dataclass(frozen=True, slots=True)
class Link:
    """A payment link; ``token`` is the last part of its address."""

    link_id: int
    consultation_id: int
    token: str = field(repr=False)


@dataclass(slots=True)
class Scenario:
    """One round. ``random`` comes from the seed; ``workers`` are the processes that may be killed."""

    name: str
    first_consultation: int
    client: Client
    load: LoadProfile
    random: Random
    workers: Workers | None = None
    staff_token: str = field(init=False, repr=False)
    amount_minor: int = field(init=False)
    method: str = field(init=False)
    consultations: list[int] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        settings = current_app.config["SETTINGS"]
        least, most = settings.payment_min_amount_minor, settings.payment_max_amount_minor
        self.amount_minor = self.random.randint(least, min(most, 5 * least))
        method = method_by_hand()
        assert method is not None  # noqa: S101  # for the type checker: the command does not begin without one
        self.method = method
        self.staff_token = self._add_user(Role.ADMIN)
        probe = self.add_patient(consultations=1)
        (consultation,) = probe.consultations
        response = self.client.try_once(self.looking_at(consultation, probe.token))
        if response.silence:  # no server there, or its certificate is not trusted
            raise WrongTarget(f"{self.client.url} does not respond: {response.silence}")
        if response.status != 200 or response.data.get("id") != consultation:  # noqa: PLR2004  # OK
            raise WrongTarget(f"{response} to a request for a new row: does it use another database, or other secrets?")

    def add_patient(self, *, consultations: int) -> Patient:
        ids = [self.first_consultation + next(self._numbers) for _ in range(consultations)]
        self.consultations += ids
        return Patient(self._add_user(Role.PATIENT, ids), ids)

    def add_link(self, patient: Patient) -> Link:
        """A link of the patient's first consultation. Not by a request, for which the service needs PUBLIC_URL."""
        consultation_id = patient.consultations[0]
        link_id, token = repository.add_link(consultation_id)
        return Link(link_id, consultation_id, token)

    def _add_user(self, role: Role, consultations: list[int] | None = None) -> str:
        currency = current_app.config["SETTINGS"].payment_currency
        return auth.issue(repository.add_user(self.name, role, consultations=consultations or [], currency=currency))

    @property
    def part_minor(self) -> int:
        """30 % of the amount: three such refunds fit, and a fourth does not."""
        return self.amount_minor * 3 // 10

    # Requests

    def new_key(self) -> str:
        return f"prove-{self.name}-{self.random.getrandbits(64):016x}"

    def paying(self, patient: Patient, consultation_id: int, *, key: str | None = None) -> Request:
        return self.paying_by(patient.token, consultation_id, key=key)

    def paying_by(self, token: str, consultation_id: int, *, key: str | None = None) -> Request:
        amount = money.to_text(self.amount_minor)
        body = {"consultation_id": consultation_id, "amount": amount, "payment_method": self.method}
        return Request("POST", "/payments", token, key or self.new_key(), body)

    def checking_out(self, patient: Patient, payment_id: int) -> Request:
        return Request("POST", f"/payments/{payment_id}/checkout", patient.token, self.new_key(), {})

    def looking_at(self, consultation_id: int, token: str) -> Request:
        return Request("GET", f"/consultations/{consultation_id}", token)

    def opening(self, link: Link) -> Request:
        """Exchange a link's token for a bearer token, as the page does that has the link."""
        return Request("POST", "/payment-links/exchange", "", body={"token": link.token})

    def revoking(self, link: Link) -> Request:
        return Request("DELETE", f"/consultations/{link.consultation_id}/links/{link.link_id}", self.staff_token)

    def confirming(self, payment_id: int, transaction_id: str) -> Request:
        body = {"transaction_id": transaction_id}
        return Request("POST", f"/payments/{payment_id}/confirm", self.staff_token, self.new_key(), body)

    def cancelling(self, payment_id: int) -> Request:
        return Request("POST", f"/payments/{payment_id}/cancel", self.staff_token, self.new_key(), {})

    def refunding(self, payment_id: int, *, key: str | None = None) -> Request:
        body = {"amount": money.to_text(self.part_minor)}
        return Request("POST", f"/payments/{payment_id}/refund", self.staff_token, key or self.new_key(), body)

    def new_transaction(self) -> str:
        return f"PROVE-{self.name}-{self.random.getrandbits(64):016x}"

    # Results

    def snapshots(self, *consultations: int) -> list[PaymentSnapshot]:
        return repository.find_snapshots(consultations)

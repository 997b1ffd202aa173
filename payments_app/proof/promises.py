"""What an attack is, what it may find, and the questions that several attacks ask of responses and rows."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from payments_app.proof.client import Response
from payments_app.proof.repository import PaymentSnapshot
from payments_app.proof.scenario import LoadProfile, Patient, Scenario

OK, CREATED, ACCEPTED, NO_CONTENT, UNAUTHENTICATED, CONFLICT, UNPROCESSABLE = 200, 201, 202, 204, 401, 409, 422


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise. ``what`` is one of a few fixed texts, ``detail`` names the rows."""

    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Size:
    """The rows that an attack needs, and the number of its requests without repetitions."""

    users: int
    consultations: int
    requests: int


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    promise: str
    size: Callable[[LoadProfile], Size]
    run: Callable[[Scenario], Iterator[Violation]]


class SetupFailed(Exception):
    """The payments that an attack needs could not be created."""


def only(responses: Sequence[Response], *allowed: int) -> Iterator[Violation]:
    """A violation for each kind of response with another status than ``allowed``."""
    others = Counter(str(response) for response in responses if response.status not in allowed)
    for text, number in others.items():
        yield Violation("an answer that no promise allows", f"{number} times: {text}")


def one_payment(scenario: Scenario, consultation: int) -> Iterator[Violation]:
    active = [snapshot for snapshot in scenario.snapshots(consultation) if snapshot.is_active]
    if len(active) != 1:
        what = "one consultation has several active payments" if active else "no payment was made"
        yield Violation(what, listed(active, [consultation]))


def listed(found: Sequence[PaymentSnapshot], consultations: Sequence[int]) -> str:
    payments = ", ".join(str(snapshot.payment_id) for snapshot in found) or "none"
    return f"consultation {', '.join(map(str, consultations))}: payments {payments}"


def pay_one(scenario: Scenario) -> tuple[int, int]:
    """Create a payment; returns the ids of the payment and of its consultation."""
    patient = scenario.add_patient(consultations=1)
    (payment_id,) = pay_all(scenario, patient)
    return payment_id, patient.consultations[0]


def pay_all(scenario: Scenario, patient: Patient) -> list[int]:
    responses = scenario.client.at_once(
        [scenario.paying(patient, consultation) for consultation in patient.consultations]
    )
    for response in responses:
        if response.status != CREATED:
            raise SetupFailed(response)
    return [response.data["payment_id"] for response in responses]

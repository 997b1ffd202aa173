"""Attacks that would charge twice, or return money that never came, if a defence were missing.

Each attack sends requests over HTTP, then reads the rows, and yields every promise that was broken. docs/defences.md
shows that each attack succeeds if its defence is removed.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import chain

from payments_app.proof import repository
from payments_app.proof.client import Request, Response
from payments_app.proof.link_attacks import checkouts, links
from payments_app.proof.promises import (
    CONFLICT,
    CREATED,
    OK,
    UNPROCESSABLE,
    Attack,
    SetupFailed,
    Size,
    Violation,
    listed,
    one_payment,
    only,
    pay_all,
    pay_one,
)
from payments_app.proof.refund_attacks import disputes, refund_twins, refunds
from payments_app.proof.scenario import LoadProfile, Patient, Scenario

# Workers are killed at a random moment within this time, which is about the duration of a burst of payments.
KILLED_WITHIN_SECONDS = 0.03


def storm(scenario: Scenario) -> Iterator[Violation]:
    """Many clicks on one consultation, each with a key of its own, as by many tabs."""
    patients = [scenario.add_patient(consultations=1) for _ in range(scenario.load.patients)]
    responses = scenario.client.at_once(
        [
            scenario.paying(patient, patient.consultations[0])
            for number, patient in enumerate(patients)
            for _ in range(scenario.load.clicks_of(number))
        ]
    )
    yield from only(responses, CREATED, CONFLICT)
    for patient in patients:
        (consultation,) = patient.consultations
        yield from one_payment(scenario, consultation)
        created = [response for response in _of(responses, patient) if response.status == CREATED]
        if len(created) > 1:
            yield Violation(
                "several clicks had the response that they created the payment", f"consultation {consultation}"
            )


def twins(scenario: Scenario) -> Iterator[Violation]:
    """The same request with the same key many times at once, as by a client that lost its connection."""
    patients = [scenario.add_patient(consultations=1) for _ in range(scenario.load.patients)]
    keys = [scenario.new_key() for _ in patients]
    responses = scenario.client.at_once(
        [
            scenario.paying(patient, patient.consultations[0], key=key)
            for number, (patient, key) in enumerate(zip(patients, keys, strict=True))
            for _ in range(scenario.load.clicks_of(number))
        ]
    )
    yield from only(responses, CREATED, CONFLICT)  # 409 if IDEMPOTENCY_REPLAY is "conflict"
    for patient in patients:
        (consultation,) = patient.consultations
        yield from one_payment(scenario, consultation)
        own_responses = _of(responses, patient)
        if len({response.data.get("payment_id") for response in own_responses}) > 1:
            yield Violation("one key had responses with different payments", f"consultation {consultation}")
        if sum(response.status == CREATED and not response.replayed for response in own_responses) > 1:
            yield Violation("one key did its work twice", f"consultation {consultation}")


def key_reuse(scenario: Scenario) -> Iterator[Violation]:
    """One key for two consultations at once, as by a client with a bug."""
    patients = [scenario.add_patient(consultations=2) for _ in range(scenario.load.patients)]
    responses = scenario.client.at_once(
        list(
            chain.from_iterable(
                _alternating(scenario, patient, scenario.load.clicks_of(number))
                for number, patient in enumerate(patients)
            )
        )
    )
    yield from only(responses, CREATED, CONFLICT, UNPROCESSABLE)
    for patient in patients:
        made = scenario.snapshots(*patient.consultations)
        if len(made) != 1:
            yield Violation(
                "one key made several payments" if made else "no payment was made", listed(made, patient.consultations)
            )


def confirms(scenario: Scenario) -> Iterator[Violation]:
    """One payment, confirmed many times at once, each time with another transaction."""
    payment_id, consultation = pay_one(scenario)
    responses = scenario.client.at_once(
        [scenario.confirming(payment_id, scenario.new_transaction()) for _ in range(scenario.load.clients)]
    )
    yield from only(responses, OK, CONFLICT)
    yield from _completed_once(scenario, responses, consultation)


def confirm_against_cancel(scenario: Scenario) -> Iterator[Violation]:
    """Payments that are confirmed and cancelled at the same moment: only one of the two may happen."""
    pairs = _pairs(scenario.load)
    patient = scenario.add_patient(consultations=pairs)
    paid = pay_all(scenario, patient)
    responses = scenario.client.at_once(
        [
            request
            for payment_id in paid
            for request in (
                scenario.confirming(payment_id, scenario.new_transaction()),
                scenario.cancelling(payment_id),
            )
        ]
    )
    yield from only(responses, OK, CONFLICT)
    for payment_id, consultation in zip(paid, patient.consultations, strict=True):
        winners = [
            response for response in responses if f"/{payment_id}/" in response.request.path and response.status == OK
        ]
        if len(winners) != 1:
            yield Violation(
                "a payment was confirmed and cancelled at once" if winners else "neither was done",
                f"payment {payment_id}",
            )
        for snapshot in scenario.snapshots(consultation):
            if (snapshot.status == "completed") != (snapshot.received_minor > 0):
                yield Violation("money came to a payment that was cancelled", f"payment {snapshot.payment_id}")


def one_transaction(scenario: Scenario) -> Iterator[Violation]:
    """One transaction of a gateway, presented for many payments at once."""
    patient = scenario.add_patient(consultations=_several(scenario.load))
    paid = pay_all(scenario, patient)
    transaction = scenario.new_transaction()
    responses = scenario.client.at_once([scenario.confirming(payment_id, transaction) for payment_id in paid])
    yield from only(responses, OK, CONFLICT)
    completed = [snapshot for snapshot in scenario.snapshots(*patient.consultations) if snapshot.received_minor]
    if len(completed) != 1:
        yield Violation(
            "one transaction paid several payments" if completed else "nothing was paid",
            listed(completed, patient.consultations),
        )


def killed_workers(scenario: Scenario) -> Iterator[Violation]:
    """Payments whose workers are killed; a client without a response sends its request again with the same key."""
    workers = scenario.workers
    assert workers is not None  # noqa: S101  # for the type checker: only run with workers
    patient = scenario.add_patient(consultations=_several(scenario.load))

    def kill() -> None:
        time.sleep(scenario.random.uniform(0, KILLED_WITHIN_SECONDS))
        workers.kill()

    responses = scenario.client.at_once(
        [scenario.paying(patient, consultation) for consultation in patient.consultations], meanwhile=kill
    )
    yield from only(responses, CREATED, CONFLICT)
    for consultation in patient.consultations:
        yield from one_payment(scenario, consultation)


def _pairs(load: LoadProfile) -> int:
    return max(1, min(load.share, load.clients // 2))


def _several(load: LoadProfile) -> int:
    return min(load.share, load.clients)


ATTACKS = (
    Attack(
        "storm",
        "many clicks with different keys make one payment",
        lambda load: Size(load.patients, load.patients, load.clients),
        storm,
    ),
    Attack(
        "twins",
        "one request sent many times at once has one effect",
        lambda load: Size(load.patients, load.patients, load.clients),
        twins,
    ),
    Attack(
        "key reuse",
        "one key for two consultations makes one payment",
        lambda load: Size(load.patients, 2 * load.patients, load.clients),
        key_reuse,
    ),
    Attack(
        "confirms",
        "many confirms at once complete a payment once",
        lambda load: Size(1, 1, 1 + load.clients),
        confirms,
    ),
    Attack(
        "confirm against cancel",
        "of confirm and cancel at once, one is done",
        lambda load: Size(1, _pairs(load), 3 * _pairs(load)),
        confirm_against_cancel,
    ),
    Attack(
        "one transaction",
        "one transaction pays one payment",
        lambda load: Size(1, _several(load), 2 * _several(load)),
        one_transaction,
    ),
    Attack(
        "refunds",
        "many refunds at once return what came, and no more",
        lambda load: Size(1, 1, 2 + load.clients),
        refunds,
    ),
    Attack(
        "refund twins",
        "one refund asked for many times is made once",
        lambda load: Size(1, 1, 2 + load.clients),
        refund_twins,
    ),
    Attack(
        "disputes",
        "a payment whose money the patient's bank took back is not refunded",
        lambda load: Size(1, 1, 2 + 2 * load.clients),
        disputes,
    ),
    Attack(
        "checkouts",
        "many checkouts of one payment at once open one session",
        lambda load: Size(1, 1, 1 + load.clients),
        checkouts,
    ),
    Attack(
        "links",
        "many phones with one link make one payment, and none after its end",
        lambda load: Size(load.patients, load.patients, 5 * load.clients + 2 * load.patients),
        links,
    ),
)

KILLED_WORKERS = Attack(
    "killed workers",
    "killed workers lose no payment, and double none",
    lambda load: Size(1, _several(load), _several(load)),
    killed_workers,
)


def attack(chosen: Attack, scenario: Scenario) -> list[Violation]:
    """Make an attack. Returns the broken promises, and the findings of an audit of its rows."""
    before = len(scenario.consultations)
    found: list[Violation] = []
    try:
        found += chosen.run(scenario)
    except SetupFailed as reason:
        found.append(Violation("the attack could not begin", str(reason)))
    audited = repository.find_violations(scenario.consultations[before:])
    return found + [Violation("an audit finds it", text) for text in audited]


def _completed_once(scenario: Scenario, responses: Sequence[Response], consultation: int) -> Iterator[Violation]:
    done = [response for response in responses if response.status == OK and not response.replayed]
    for snapshot in scenario.snapshots(consultation):
        if len(done) > 1 or snapshot.completions > 1:
            yield Violation(
                "several confirms of one payment were done",
                f"payment {snapshot.payment_id}: {len(done)} responses say so",
            )
        elif not done:
            yield Violation("no confirm was done", f"payment {snapshot.payment_id}")


def _of(responses: Sequence[Response], patient: Patient) -> list[Response]:
    return [response for response in responses if response.request.token == patient.token]


def _alternating(scenario: Scenario, patient: Patient, clicks: int) -> list[Request]:
    key = scenario.new_key()
    return [scenario.paying(patient, patient.consultations[click % 2], key=key) for click in range(clicks)]

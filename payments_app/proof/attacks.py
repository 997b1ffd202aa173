"""What could charge somebody twice, or return what never came, if a defence were missing: done in earnest.

Each attack asks over HTTP, then looks at the rows, and tells of every promise that did not hold. Without their defences
these very functions get through, one by one: docs/defences.md is made by trying that.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from payments_app.proof import repository
from payments_app.proof.client import Ask, Told
from payments_app.proof.repository import Kept
from payments_app.proof.scenario import Crowd, Patient, Scene

OK, CREATED, CONFLICT, UNPROCESSABLE = 200, 201, 409, 422

# Workers are killed at some moment within this, which is about what a burst of payments takes.
KILLED_WITHIN_SECONDS = 0.03

# Parts of 30 % that fit into a payment.
PARTS_THAT_FIT = 3


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that did not hold: ``what`` is one of a few sentences, ``detail`` says where."""

    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Size:
    """What an attack needs, and how often it asks if nothing has to be asked again."""

    users: int
    consultations: int
    requests: int


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    promise: str
    size: Callable[[Crowd], Size]
    run: Callable[[Scene], Iterator[Breach]]


def storm(scene: Scene) -> Iterator[Breach]:
    """Many clicks on one consultation, each with a key of its own, as by many tabs."""
    patients = [scene.add_patient(consultations=1) for _ in range(scene.crowd.patients)]
    told = scene.client.at_once(
        [
            scene.paying(patient, patient.consultations[0])
            for number, patient in enumerate(patients)
            for _ in range(scene.crowd.clicks_of(number))
        ]
    )
    yield from _only(told, CREATED, CONFLICT)
    for patient in patients:
        (consultation,) = patient.consultations
        yield from _one_payment(scene, consultation)
        made = [answer for answer in _of(told, patient) if answer.status == CREATED]
        if len(made) > 1:
            yield Breach("several clicks were told that they made the payment", f"consultation {consultation}")


def twins(scene: Scene) -> Iterator[Breach]:
    """The same request with the same key many times at once, as by a client that was cut off and hurries."""
    patients = [scene.add_patient(consultations=1) for _ in range(scene.crowd.patients)]
    keys = [scene.new_key() for _ in patients]
    told = scene.client.at_once(
        [
            scene.paying(patient, patient.consultations[0], key=key)
            for number, (patient, key) in enumerate(zip(patients, keys, strict=True))
            for _ in range(scene.crowd.clicks_of(number))
        ]
    )
    yield from _only(told, CREATED, CONFLICT)  # 409 where IDEMPOTENCY_REPLAY is "conflict"
    for patient in patients:
        (consultation,) = patient.consultations
        yield from _one_payment(scene, consultation)
        answers = _of(told, patient)
        if len({answer.data.get("payment_id") for answer in answers}) > 1:
            yield Breach("one key was answered with different payments", f"consultation {consultation}")
        if sum(answer.status == CREATED and not answer.replayed for answer in answers) > 1:
            yield Breach("one key did its work twice", f"consultation {consultation}")


def key_reuse(scene: Scene) -> Iterator[Breach]:
    """One key for two consultations at once, as by a client with a mistake in it."""
    patients = [scene.add_patient(consultations=2) for _ in range(scene.crowd.patients)]
    told = scene.client.at_once(
        list(
            chain.from_iterable(
                _alternating(scene, patient, scene.crowd.clicks_of(number)) for number, patient in enumerate(patients)
            )
        )
    )
    yield from _only(told, CREATED, CONFLICT, UNPROCESSABLE)
    for patient in patients:
        made = scene.kept(*patient.consultations)
        if len(made) != 1:
            yield Breach(
                "one key made several payments" if made else "no payment was made", _listed(made, patient.consultations)
            )


def confirms(scene: Scene) -> Iterator[Breach]:
    """One payment, confirmed by many at once, each with a transaction of its own."""
    payment_id, consultation = _pay_one(scene)
    told = scene.client.at_once(
        [scene.confirming(payment_id, scene.new_transaction()) for _ in range(scene.crowd.clients)]
    )
    yield from _only(told, OK, CONFLICT)
    yield from _completed_once(scene, told, consultation)


def confirm_against_cancel(scene: Scene) -> Iterator[Breach]:
    """Payments that are confirmed and cancelled in the same moment: money that came, or a payment that was given up."""
    pairs = _pairs(scene.crowd)
    patient = scene.add_patient(consultations=pairs)
    paid = _pay_all(scene, patient)
    told = scene.client.at_once(
        [
            ask
            for payment_id in paid
            for ask in (scene.confirming(payment_id, scene.new_transaction()), scene.cancelling(payment_id))
        ]
    )
    yield from _only(told, OK, CONFLICT)
    for payment_id, consultation in zip(paid, patient.consultations, strict=True):
        winners = [answer for answer in told if f"/{payment_id}/" in answer.ask.path and answer.status == OK]
        if len(winners) != 1:
            yield Breach(
                "a payment was confirmed and cancelled at once" if winners else "neither was done",
                f"payment {payment_id}",
            )
        for kept in scene.kept(consultation):
            if (kept.status == "completed") != (kept.received_minor > 0):
                yield Breach("money came to a payment that was cancelled", f"payment {kept.payment_id}")


def one_transaction(scene: Scene) -> Iterator[Breach]:
    """One transaction of a gateway's, shown for many payments at once."""
    patient = scene.add_patient(consultations=_several(scene.crowd))
    paid = _pay_all(scene, patient)
    transaction = scene.new_transaction()
    told = scene.client.at_once([scene.confirming(payment_id, transaction) for payment_id in paid])
    yield from _only(told, OK, CONFLICT)
    completed = [kept for kept in scene.kept(*patient.consultations) if kept.received_minor]
    if len(completed) != 1:
        yield Breach(
            "one transaction paid several payments" if completed else "nothing was paid",
            _listed(completed, patient.consultations),
        )


def refunds(scene: Scene) -> Iterator[Breach]:
    """One payment, of which many return 30 % at once: three fit."""
    payment_id, consultation = _pay_confirmed(scene)
    told = scene.client.at_once([scene.refunding(payment_id) for _ in range(scene.crowd.clients)])
    yield from _only(told, OK, CONFLICT, UNPROCESSABLE)
    for kept in scene.kept(consultation):
        if kept.returned_minor > kept.received_minor:
            yield Breach(
                "more was sent back than came",
                f"payment {payment_id}: {kept.returned_minor} of {kept.received_minor} minor units",
            )
        elif kept.refunds != min(PARTS_THAT_FIT, scene.crowd.clients):
            yield Breach("money that could be returned was not", f"payment {payment_id}: {kept.refunds} refunds")


def refund_twins(scene: Scene) -> Iterator[Breach]:
    """One refund, asked for many times at once with one key."""
    payment_id, consultation = _pay_confirmed(scene)
    key = scene.new_key()
    told = scene.client.at_once([scene.refunding(payment_id, key=key) for _ in range(scene.crowd.clients)])
    accepted = 202  # a twin that comes before the outcome
    yield from _only(told, OK, accepted)
    for kept in scene.kept(consultation):
        if kept.refunds != 1:
            yield Breach(
                "one key returned money several times" if kept.refunds else "no refund was made",
                f"payment {payment_id}: {kept.refunds} refunds",
            )


def killed_workers(scene: Scene) -> Iterator[Breach]:
    """Payments whose workers are killed under them; whoever has no answer asks again with the same key."""
    workers = scene.workers
    assert workers is not None  # noqa: S101  # for the type checker: it is only run where there are some
    patient = scene.add_patient(consultations=_several(scene.crowd))

    def kill() -> None:
        time.sleep(scene.chance.uniform(0, KILLED_WITHIN_SECONDS))
        workers.kill()

    told = scene.client.at_once(
        [scene.paying(patient, consultation) for consultation in patient.consultations], meanwhile=kill
    )
    yield from _only(told, CREATED, CONFLICT)
    for consultation in patient.consultations:
        yield from _one_payment(scene, consultation)


def _pairs(crowd: Crowd) -> int:
    return max(1, min(crowd.share, crowd.clients // 2))


def _several(crowd: Crowd) -> int:
    return min(crowd.share, crowd.clients)


ATTACKS = (
    Attack(
        "storm",
        "many clicks with different keys make one payment",
        lambda crowd: Size(crowd.patients, crowd.patients, crowd.clients),
        storm,
    ),
    Attack(
        "twins",
        "one request sent many times at once has one effect",
        lambda crowd: Size(crowd.patients, crowd.patients, crowd.clients),
        twins,
    ),
    Attack(
        "key reuse",
        "one key for two consultations makes one payment",
        lambda crowd: Size(crowd.patients, 2 * crowd.patients, crowd.clients),
        key_reuse,
    ),
    Attack(
        "confirms",
        "many confirms at once complete a payment once",
        lambda crowd: Size(1, 1, 1 + crowd.clients),
        confirms,
    ),
    Attack(
        "confirm against cancel",
        "of confirm and cancel at once, one is done",
        lambda crowd: Size(1, _pairs(crowd), 3 * _pairs(crowd)),
        confirm_against_cancel,
    ),
    Attack(
        "one transaction",
        "one transaction pays one payment",
        lambda crowd: Size(1, _several(crowd), 2 * _several(crowd)),
        one_transaction,
    ),
    Attack(
        "refunds",
        "many refunds at once return what came, and no more",
        lambda crowd: Size(1, 1, 2 + crowd.clients),
        refunds,
    ),
    Attack(
        "refund twins",
        "one refund asked for many times is made once",
        lambda crowd: Size(1, 1, 2 + crowd.clients),
        refund_twins,
    ),
)

KILLED_WORKERS = Attack(
    "killed workers",
    "killed workers lose no payment, and double none",
    lambda crowd: Size(1, _several(crowd), _several(crowd)),
    killed_workers,
)


class NotBegun(Exception):
    """The payments that an attack is to be made on could not be made."""


def attack(which: Attack, scene: Scene) -> list[Breach]:
    """What did not hold, of what the attack is after, and of what an audit would look for in its rows."""
    before = len(scene.consultations)
    found: list[Breach] = []
    try:
        found += which.run(scene)
    except NotBegun as reason:
        found.append(Breach("the attack could not begin", str(reason)))
    offenders = repository.find_offenders(scene.consultations[before:])
    return found + [Breach("an audit finds it", offender) for offender in offenders]


def _only(told: Sequence[Told], *allowed: int) -> Iterator[Breach]:
    """Whatever else was answered, each kind of it once."""
    others = Counter(str(answer) for answer in told if answer.status not in allowed)
    for answer, number in others.items():
        yield Breach("an answer that no promise allows", f"{number} times: {answer}")


def _one_payment(scene: Scene, consultation: int) -> Iterator[Breach]:
    active = [kept for kept in scene.kept(consultation) if kept.is_active]
    if len(active) != 1:
        what = "one consultation has several active payments" if active else "no payment was made"
        yield Breach(what, _listed(active, [consultation]))


def _completed_once(scene: Scene, told: Sequence[Told], consultation: int) -> Iterator[Breach]:
    done = [answer for answer in told if answer.status == OK and not answer.replayed]
    for kept in scene.kept(consultation):
        if len(done) > 1 or kept.completions > 1:
            yield Breach(
                "several confirms of one payment were done", f"payment {kept.payment_id}: {len(done)} answered so"
            )
        elif not done:
            yield Breach("no confirm was done", f"payment {kept.payment_id}")


def _listed(found: Sequence[Kept], consultations: Sequence[int]) -> str:
    payments = ", ".join(str(kept.payment_id) for kept in found) or "none"
    return f"consultation {', '.join(map(str, consultations))}: payments {payments}"


def _of(told: Sequence[Told], patient: Patient) -> list[Told]:
    return [answer for answer in told if answer.ask.token == patient.token]


def _alternating(scene: Scene, patient: Patient, clicks: int) -> list[Ask]:
    key = scene.new_key()
    return [scene.paying(patient, patient.consultations[click % 2], key=key) for click in range(clicks)]


def _pay_one(scene: Scene) -> tuple[int, int]:
    """A payment and its consultation."""
    patient = scene.add_patient(consultations=1)
    (payment_id,) = _pay_all(scene, patient)
    return payment_id, patient.consultations[0]


def _pay_confirmed(scene: Scene) -> tuple[int, int]:
    """A payment whose money has come, and its consultation."""
    payment_id, consultation = _pay_one(scene)
    told = scene.client.ask(scene.confirming(payment_id, scene.new_transaction()))
    if told.status != OK:
        raise NotBegun(told)
    return payment_id, consultation


def _pay_all(scene: Scene, patient: Patient) -> list[int]:
    told = scene.client.at_once([scene.paying(patient, consultation) for consultation in patient.consultations])
    for answer in told:
        if answer.status != CREATED:
            raise NotBegun(answer)
    return [answer.data["payment_id"] for answer in told]

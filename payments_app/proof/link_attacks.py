"""Attacks on the sessions of a payment, and by payment links."""

from collections.abc import Iterator, Sequence

from payments_app.proof.promises import (
    CONFLICT,
    CREATED,
    NO_CONTENT,
    OK,
    UNAUTHENTICATED,
    SetupFailed,
    Violation,
    listed,
    one_payment,
    only,
    pay_all,
)
from payments_app.proof.scenario import Link, Scenario


def checkouts(scenario: Scenario) -> Iterator[Violation]:
    """The checkout of one payment, opened many times at once, as by a patient with many tabs."""
    patient = scenario.add_patient(consultations=1)
    (payment_id,) = pay_all(scenario, patient)
    responses = scenario.client.at_once(
        [scenario.checking_out(patient, payment_id) for _ in range(scenario.load.clients)]
    )
    yield from only(responses, OK)
    if len({response.data.get("reference") for response in responses}) > 1:
        yield Violation("one payment was given several sessions", f"payment {payment_id}")
    for snapshot in scenario.snapshots(*patient.consultations):
        if snapshot.open_sessions != 1:
            what = "one payment has several open sessions" if snapshot.open_sessions else "no session was opened"
            yield Violation(what, f"payment {payment_id}: {snapshot.open_sessions}")


def links(scenario: Scenario) -> Iterator[Violation]:
    """Many phones with one payment link pay at once; then the link is revoked, and all of them try again."""
    patients = [scenario.add_patient(consultations=1) for _ in range(scenario.load.patients)]
    opened = [scenario.add_link(patient) for patient in patients]
    phones = _phones(scenario, opened)
    first = [scenario.paying_by(token, link.consultation_id) for link, token in phones]
    yield from only(scenario.client.at_once(first), CREATED, CONFLICT)
    for link in opened:
        yield from one_payment(scenario, link.consultation_id)
    # The consultations are free again: only the end of the links is in the way of another payment.
    paid = [snapshot.payment_id for link in opened for snapshot in scenario.snapshots(link.consultation_id)]
    yield from only(scenario.client.at_once([scenario.cancelling(payment_id) for payment_id in paid]), OK)
    yield from only(scenario.client.at_once([scenario.revoking(link) for link in opened]), NO_CONTENT)
    again = [scenario.paying_by(token, link.consultation_id) for link, token in phones]
    looks = [scenario.looking_at(link.consultation_id, token) for link, token in phones]
    responses = [response for burst in (first, again, looks) for response in scenario.client.at_once(burst)]
    yield from only(responses, UNAUTHENTICATED)
    if answered := sum(response.status in (OK, CREATED) for response in responses):
        yield Violation("a link that was revoked was answered", f"{answered} times")
    for link in opened:
        made = [each for each in scenario.snapshots(link.consultation_id) if each.payment_id not in paid]
        if made:
            yield Violation("a link that was revoked made a payment", listed(made, [link.consultation_id]))


def _phones(scenario: Scenario, opened: Sequence[Link]) -> list[tuple[Link, str]]:
    """So many phones as clients, shared between the links; each with a bearer token of its own."""
    links = [link for number, link in enumerate(opened) for _ in range(scenario.load.clicks_of(number))]
    responses = scenario.client.at_once([scenario.opening(link) for link in links])
    for response in responses:
        if response.status != OK:
            raise SetupFailed(response)
    return [(link, str(response.body["token"])) for link, response in zip(links, responses, strict=True)]

"""Attacks on what a payment gives back.

Its refunds are accepted, not made: staff would have to send their money, and their amount is reserved until then.
"""

from collections.abc import Iterator

from payments_app.proof import repository
from payments_app.proof.promises import ACCEPTED, CONFLICT, OK, UNPROCESSABLE, SetupFailed, Violation, only, pay_one
from payments_app.proof.scenario import Scenario

# How many refunds of 30 % fit into a payment.
PARTS_THAT_FIT = 3


def refunds(scenario: Scenario) -> Iterator[Violation]:
    """One payment, and many refunds of 30 % at once: only three fit."""
    payment_id, consultation = _pay_confirmed(scenario)
    responses = scenario.client.at_once([scenario.refunding(payment_id) for _ in range(scenario.load.clients)])
    yield from only(responses, OK, ACCEPTED, CONFLICT, UNPROCESSABLE)
    for snapshot in scenario.snapshots(consultation):
        if snapshot.returned_minor > snapshot.received_minor:
            yield Violation(
                "more was sent back than came",
                f"payment {payment_id}: {snapshot.returned_minor} of {snapshot.received_minor} minor units",
            )
        elif snapshot.refunds != min(PARTS_THAT_FIT, scenario.load.clients):
            yield Violation("money that could be returned was not", f"payment {payment_id}: {snapshot.refunds} refunds")


def refund_twins(scenario: Scenario) -> Iterator[Violation]:
    """One refund, requested many times at once with one key."""
    payment_id, consultation = _pay_confirmed(scenario)
    key = scenario.new_key()
    responses = scenario.client.at_once([scenario.refunding(payment_id, key=key) for _ in range(scenario.load.clients)])
    yield from only(responses, OK, ACCEPTED)
    for snapshot in scenario.snapshots(consultation):
        if snapshot.refunds != 1:
            yield Violation(
                "one key returned money several times" if snapshot.refunds else "no refund was made",
                f"payment {payment_id}: {snapshot.refunds} refunds",
            )


def disputes(scenario: Scenario) -> Iterator[Violation]:
    """The patient's bank takes the money back while many refunds of one payment are asked for, and then many more.

    The dispute is not sent to the webhook, because no gateway knows this payment: it is applied as that does it.
    """
    payment_id, consultation = _pay_confirmed(scenario)
    burst = [scenario.refunding(payment_id) for _ in range(scenario.load.clients)]
    responses = scenario.client.at_once(burst, meanwhile=lambda: repository.add_dispute(payment_id, scenario.name))
    yield from only(responses, OK, ACCEPTED, CONFLICT, UNPROCESSABLE)
    before = scenario.snapshots(consultation)
    responses = scenario.client.at_once([scenario.refunding(payment_id) for _ in range(scenario.load.clients)])
    yield from only(responses, CONFLICT)
    for earlier, now in zip(before, scenario.snapshots(consultation), strict=True):
        if now.refunds != earlier.refunds:
            yield Violation(
                "a payment was refunded that the patient's bank had taken back",
                f"payment {payment_id}: {now.refunds - earlier.refunds} refunds",
            )


def _pay_confirmed(scenario: Scenario) -> tuple[int, int]:
    """Create and confirm a payment; returns the ids of the payment and of its consultation."""
    payment_id, consultation = pay_one(scenario)
    response = scenario.client.request(scenario.confirming(payment_id, scenario.new_transaction()))
    if response.status != OK:
        raise SetupFailed(response)
    return payment_id, consultation

"""Attacks by what Stripe is said to have told: they need its secret, which an operator's own proof leaves alone."""

import json
import time
from collections.abc import Iterator
from typing import Any

import requests
from stripe import WebhookSignature

from payments_app.proof.client import Request
from payments_app.proof.promises import Attack, Size, Violation
from payments_app.proof.scenario import Patient, Scenario
from tests.support.service import at_once
from tests.support.waiting import PATIENCE_SECONDS

SECRET = "whsec_of-the-tests-of-defences"

# A key makes Stripe the carrier of cards; nobody answers at its address, and nothing here needs it.
STRIPE = {
    "STRIPE_API_KEY": "sk_test_defences",
    "STRIPE_CHECKOUT": "elements",
    "STRIPE_WEBHOOK_SECRET": SECRET,
    "STRIPE_API_BASE": "http://127.0.0.1:9",
}

DELIVERIES = 8


def forged_webhook(scenario: Scenario) -> Iterator[Violation]:
    """Somebody who knows no secret says that a payment was paid."""
    payment_id, patient = _pay_by_card(scenario)
    _tell(scenario, _event(scenario, payment_id, patient, "succeeded"), secret="whsec_guessed")
    for kept in scenario.snapshots(*patient.consultations):
        if kept.received_minor:
            yield Violation("a forged webhook paid a payment", f"payment {payment_id}")


def doubled_webhook(scenario: Scenario) -> Iterator[Violation]:
    """Stripe delivers one event many times at once."""
    payment_id, patient = _pay_by_card(scenario)
    event = _event(scenario, payment_id, patient, "payment_failed")
    at_once([lambda: _tell(scenario, event, secret=SECRET)] * DELIVERIES)
    told = scenario.client.request(Request("GET", f"/payments/{payment_id}/events", patient.token))
    attempts = [happened for happened in told.body["data"] if happened["event"] == "payment.attempt_failed"]
    if len(attempts) != 1:
        yield Violation("one event was processed several times", f"payment {payment_id}: {len(attempts)}")


def doubled_money(scenario: Scenario) -> Iterator[Violation]:
    """Stripe says many times at once that a payment was paid."""
    payment_id, patient = _pay_by_card(scenario)
    event = _event(scenario, payment_id, patient, "succeeded")
    at_once([lambda: _tell(scenario, event, secret=SECRET)] * DELIVERIES)
    for kept in scenario.snapshots(*patient.consultations):
        if (kept.completions, kept.received_minor) != (1, scenario.amount_minor):
            yield Violation(
                "money that came once was counted otherwise", f"payment {payment_id}: {kept.received_minor}"
            )


def _pay_by_card(scenario: Scenario) -> tuple[int, Patient]:
    patient = scenario.add_patient(consultations=1)
    asked = scenario.paying(patient, patient.consultations[0])
    assert asked.body is not None
    asked.body["payment_method"] = "stripe"
    return scenario.client.request(asked).data["payment_id"], patient


def _event(scenario: Scenario, payment_id: int, patient: Patient, kind: str) -> dict[str, Any]:
    """What Stripe would say of a PaymentIntent of ours."""
    intent = {
        "id": f"pi_{payment_id}",
        "object": "payment_intent",
        "status": "succeeded" if kind == "succeeded" else "requires_payment_method",
        "amount": scenario.amount_minor,
        "currency": "php",
        "metadata": {"payment_id": str(payment_id), "consultation_id": str(patient.consultations[0])},
    }
    return {
        "id": f"evt_{payment_id}",
        "object": "event",
        "created": int(time.time()),
        "type": f"payment_intent.{kind}",
        "data": {"object": intent},
    }


def _tell(scenario: Scenario, event: dict[str, Any], *, secret: str) -> requests.Response:
    body, now = json.dumps(event), int(time.time())
    signature = WebhookSignature._compute_signature(f"{now}.{body}", secret)
    return requests.post(
        f"{scenario.client.url}/api/v1/webhooks/stripe",
        data=body,
        headers={"Stripe-Signature": f"t={now},v1={signature}", "Content-Type": "application/json"},
        timeout=PATIENCE_SECONDS,
    )


def _of_one(_crowd: object) -> Size:
    return Size(1, 1, 2)


DOUBLED_MONEY = Attack("doubled money", "money is counted once however often it is told of", _of_one, doubled_money)
FORGED_WEBHOOK = Attack("forged webhook", "only what the gateway has signed is believed", _of_one, forged_webhook)
DOUBLED_WEBHOOK = Attack("doubled webhook", "one event is taken in once", _of_one, doubled_webhook)

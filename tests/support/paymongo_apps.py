"""An app whose GCash, wallets, cards and QR Ph are carried by a fake PayMongo over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask

from tests.support.apps import app_with
from tests.support.client import ApiResponse, client_of
from tests.support.fake_gateway import Wire
from tests.support.fake_paymongo import FakePayMongo
from tests.support.people import People
from tests.support.stripe_apps import QUICK

METHODS = "stripe:paymongo,gcash:paymongo,e_wallet:paymongo,bank_transfer:paymongo"


class PayMongoApp(NamedTuple):
    """PayMongo, as far as the app can see; the app; and its people."""

    fake: FakePayMongo
    app: Flask
    people: People

    def send(self, body: bytes, signature: str | None) -> ApiResponse:
        headers = {"Content-Type": "application/json"}
        if signature is not None:
            headers["Paymongo-Signature"] = signature
        return client_of(self.app).post("/api/v1/webhooks/paymongo", data=body, headers=headers)

    def tell(self, event: Wire) -> None:
        """Deliver an event, which has to be taken in."""
        body = json.dumps(event).encode()
        answer = self.send(body, self.fake.sign(body))
        assert answer.status_code == 200, answer.json

    def create(self, consultation_id: int = 5, method: str = "gcash", amount: int = 5000) -> int:
        created = self.people.patient.pay(consultation_id, payment_method=method, amount=amount)
        assert created.status_code == 201, created.json
        assert created.json["data"]["payment"]["gateway"] == "paymongo"
        payment_id: int = created.json["data"]["payment_id"]
        return payment_id

    def check_out(self, payment_id: int) -> dict[str, Any]:
        opened = self.people.patient.post(f"/payments/{payment_id}/checkout")
        assert opened.status_code == 200, opened.json
        data: dict[str, Any] = opened.json["data"]
        return data

    def open(self, consultation_id: int = 5, method: str = "gcash") -> tuple[int, str]:
        """A payment with an open session: its id, and the session's."""
        payment_id = self.create(consultation_id, method)
        return payment_id, str(self.check_out(payment_id)["reference"])

    def paid(self, consultation_id: int = 5, method: str = "gcash") -> tuple[int, str]:
        """A payment that the patient has paid and that a webhook has completed: its id, and the transaction's."""
        payment_id, session_id = self.open(consultation_id, method)
        transaction_id = self.fake.pay(session_id)
        self.tell(self.fake.session_paid(session_id))
        return payment_id, transaction_id


def paymongo_settings(fake: FakePayMongo, **settings: str) -> dict[str, str]:
    """The environment by which an app, or a gunicorn, takes the fake for PayMongo; others may be given, or replaced."""
    return {
        "PAYMONGO_API_KEY": fake.api_key,
        "PAYMONGO_API_BASE": fake.api_base,
        "PAYMONGO_WEBHOOK_SECRET": fake.webhook_secret,
        "PAYMENT_GATEWAYS": METHODS,
        **QUICK,
        **settings,
    }


@contextmanager
def fake_paymongo(api_key: str = "sk_live_fake") -> Iterator[FakePayMongo]:
    fake = FakePayMongo(api_key)
    try:
        yield fake
    finally:
        fake.close()


@contextmanager
def wallet_shop(database_url: str, people: People, **settings: str) -> Iterator[PayMongoApp]:
    """An app of its own, on the database of the people, with a PayMongo of its own."""
    with fake_paymongo() as fake, app_with(database_url, **paymongo_settings(fake, **settings)) as app:
        yield PayMongoApp(fake, app, people.seen_by(app))

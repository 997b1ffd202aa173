"""An independent fake of Stripe, localstripe from PyPI, in its own process."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until_answered

API_KEY = "sk_test_localstripe"
CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040", "cvc": "123"}


@dataclass
class LocalStripe:
    """A running localstripe.

    It shows that the adapter does not only work with the fake of this project. It differs from Stripe:

    - It refuses parameters it does not know, ``automatic_payment_methods`` among them, with 400 "Unexpected ...". An
      intent created without them is one that takes any payment method.
    - It ignores Idempotency-Key: the same request twice is two intents, or two refunds.
    - It refunds more than was paid, as often as it is asked.
    - ``latest_charge`` is the whole charge, where Stripe gives its id. ``amount_received`` is not there at all.
    - A charge does not inherit the metadata of its intent.
    - It cannot list the refunds of an intent that has no charge yet, nor refund one that was cancelled before it was
      paid: it answers 500 in plain text. Refunds of the same second are listed oldest first.
    - Its errors mostly have neither ``code`` nor ``param``: a missing object is 404 "Not Found", everything that an
      object's state forbids is 400 "Bad request". It takes any key that begins with ``sk_``.
    """

    url: str
    api_key: str = API_KEY

    def pay(self, intent_id: str) -> None:
        """As if the customer paid by card; only a payment method of the intent's own can be confirmed."""
        card = {f"card[{name}]": value for name, value in CARD.items()}
        method = self._post("/payment_methods", {"type": "card", **card})
        self._post(f"/payment_intents/{intent_id}", {"payment_method": method["id"]})
        intent = self._post(f"/payment_intents/{intent_id}/confirm", {})
        assert intent["status"] == "succeeded", intent

    def _post(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        answer = requests.post(f"{self.url}/v1{path}", data=params, headers=headers, timeout=PATIENCE_SECONDS)
        assert answer.ok, answer.text
        json: dict[str, Any] = answer.json()
        return json


@contextmanager
def local_stripe() -> Iterator[LocalStripe]:
    """Start it, empty, wait until it answers, and stop it at the end."""
    port = free_port()
    # Otherwise it would load the objects of an earlier one from /tmp/localstripe.pickle.
    command = [sys.executable, "-m", "localstripe", "--port", str(port), "--from-scratch"]
    with tempfile.TemporaryDirectory(prefix="payments-localstripe-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_answered(f"http://127.0.0.1:{port}/js.stripe.com/v3/", process, log)
            yield LocalStripe(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

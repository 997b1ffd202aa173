"""What the demo's people do: on the page, and without it."""

from typing import Any

import requests
from playwright.sync_api import Page, expect

from payments_app.demo.people import PASSWORD
from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS

PATIENT, STAFF = "patient@test.com", "admin@test.com"


class ApiUser:
    """One of them without the page, for what comes before a test: it takes a tenth of the time."""

    def __init__(self, service: Service, email: str = PATIENT) -> None:
        self._api = f"{service.url}/api"
        login = {"email": email, "password": PASSWORD}
        signed_in = requests.post(f"{self._api}/login", json=login, timeout=PATIENCE_SECONDS)
        self._headers = {"Authorization": f"Bearer {signed_in.json()['token']}"}

    def post(self, path: str, **body: Any) -> Any:
        """The response's ``data``."""
        answer = requests.post(f"{self._api}/v1{path}", json=body, headers=self._headers, timeout=PATIENCE_SECONDS)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def create_payment(self, consultation_id: int, method: str = "stripe") -> int:
        """A pending payment; its id."""
        made = self.post("/payments", consultation_id=consultation_id, amount=5000, payment_method=method)
        payment_id: int = made["payment_id"]
        return payment_id

    def pay(self, consultation_id: int) -> int:
        """A payment by card that is paid; its id."""
        payment_id = self.create_payment(consultation_id)
        session = self.post(f"/payments/{payment_id}/checkout")
        self.post(f"/payments/{payment_id}/confirm", transaction_id=session["reference"])
        return payment_id


def sign_in(page: Page, email: str = PATIENT, *, path: str = "/") -> None:
    """From the address ``path``, or where it is empty, from where one is."""
    if path:
        page.goto(path)
    page.get_by_test_id("email").fill(email)
    page.get_by_test_id("password").fill("password")
    page.get_by_test_id("login").click()
    expect(page.get_by_test_id("history")).to_be_attached()
    expect(page.get_by_test_id("login")).to_be_hidden()


def choose(page: Page, consultation_id: int, *, method: str = "stripe") -> None:
    page.get_by_test_id(f"consultation-{consultation_id}").click()
    page.get_by_test_id("amount").fill("5000")
    page.get_by_test_id("method").select_option(method)


def pay(page: Page, consultation_id: int, *, method: str = "stripe") -> None:
    """Choose, press *Pay* and, for a card, pay on the sandbox's page."""
    choose(page, consultation_id, method=method)
    page.get_by_test_id("pay").click()
    if method == "stripe":
        pay_in_sandbox(page)
    see_result(page)


def pay_in_sandbox(page: Page) -> None:
    """On the sandbox's page; afterwards the browser is back."""
    page.wait_for_url("**/sandbox/**")
    page.locator("button[value=pay]").click()


def see_result(page: Page) -> None:
    expect(page.get_by_test_id("result")).to_be_visible()
    expect(page.get_by_test_id("pay")).to_be_enabled()

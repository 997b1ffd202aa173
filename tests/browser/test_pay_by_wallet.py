"""The page of a payment link, with a look-alike of PayMongo that has a checkout page of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_pay_page import CLINIC, DUE, choose, press_pay, screen
from tests.support.browser import save_screenshot, visitor
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.fake_paymongo import FakePayMongo
from tests.support.links import Payer
from tests.support.paymongo_apps import fake_paymongo, paymongo_settings
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service

pytestmark = [on_sqlite, pytest.mark.usefixtures("audited")]

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def wallet_service(database: Database) -> Iterator[tuple[Service, FakePayMongo]]:
    """Two gunicorn worker processes of a clinic whose wallets and cards PayMongo carries."""
    with fake_paymongo() as fake, Service.started(database.url, 2, **paymongo_settings(fake, **CLINIC)) as service:
        yield service, fake


@dataclass
class WalletPage:
    """The service, PayMongo's look-alike, and the link of a consultation that costs 1,500.50."""

    service: Service
    fake: FakePayMongo
    rows: Rows
    page: Page
    url: str

    def payments(self) -> list[tuple[str, str, int]]:
        """Method, status and amount of each payment, oldest first."""
        found = self.rows.all("SELECT payment_method, status, amount_minor FROM payments ORDER BY created_at, id")
        return [(row["payment_method"], row["status"], row["amount_minor"]) for row in found]

    def money_taken(self) -> list[tuple[str, int]]:
        """By which wallet, and the amount, of each payment that PayMongo has taken."""
        taken = [each["attributes"] for each in self.fake.payments.values()]
        return [(each["source"]["type"], each["amount"]) for each in taken if each["status"] == "paid"]

    def sessions(self) -> list[str]:
        """The statuses of PayMongo's sessions, oldest first."""
        return [each["attributes"]["status"] for each in self.fake.sessions.values()]

    def begin(self, method: str) -> None:
        """Open the link and press *Pay*; the browser is on PayMongo's page then."""
        self.page.goto(self.url)
        screen(self.page, "choose")
        choose(self.page, method)
        press_pay(self.page)
        self.page.wait_for_url(f"{self.fake.url}/checkout/*")


@pytest.fixture
def clinic(
    wallet_service: tuple[Service, FakePayMongo], people: People, rows: Rows, chromium: Browser
) -> Iterator[WalletPage]:
    service, fake = wallet_service
    registered = people.admin.put("/consultations/5", {"patient_id": people.patient.id, **DUE})
    assert registered.status_code == 200, registered.json
    made = service.post(people.admin, "/consultations/5/links", {})
    assert made.status_code == 201, made.text
    payer = Payer(people, 5, made.json()["data"])
    fake.webhooks_to = service.url
    settings = {"viewport": PHONE, "timezone_id": "Asia/Manila", "locale": "en-PH"}
    with visitor(chromium, service.url, beside=fake.url, **settings) as page:
        yield WalletPage(service, fake, rows, page, f"/pay/{payer.link_token}")
    fake.reset()


def test_a_patient_pays_with_gcash_on_paymongos_page(clinic: WalletPage) -> None:
    clinic.begin("gcash")
    expect(clinic.page.get_by_text("PHP 1,500.50")).to_be_visible()
    save_screenshot(clinic.page, "wallet-paymongo")

    clinic.page.get_by_role("button", name="Pay with gcash").click()

    screen(clinic.page, "paid")
    save_screenshot(clinic.page, "wallet-paid")
    expect(clinic.page.get_by_test_id("paid")).to_contain_text("₱1,500.50 by GCash")
    assert clinic.payments() == [("gcash", "completed", 150_050)]
    assert clinic.money_taken() == [("gcash", 150_050)]
    assert len(clinic.sessions()) == 1


def test_gcash_that_was_begun_can_be_continued_or_cancelled_for_a_card(clinic: WalletPage) -> None:
    page = clinic.page
    clinic.begin("gcash")
    page.get_by_role("link", name="Leave").click()
    screen(page, "pending")
    expect(page.get_by_test_id("continue")).to_have_text("Continue with GCash")
    save_screenshot(page, "wallet-waiting")

    page.get_by_test_id("continue").click()
    page.wait_for_url(f"{clinic.fake.url}/checkout/*")
    assert clinic.sessions() == ["active"]
    page.get_by_role("link", name="Leave").click()
    screen(page, "pending")
    page.get_by_test_id("cancel").click()

    screen(page, "choose")
    expect(page.get_by_test_id("notice")).to_contain_text("Cancelled; nothing was charged")
    assert clinic.sessions() == ["expired"]
    choose(page, "stripe")
    press_pay(page)
    page.get_by_role("button", name="Pay with card").click()
    screen(page, "paid")
    assert clinic.payments() == [("gcash", "cancelled", 150_050), ("stripe", "completed", 150_050)]
    assert clinic.money_taken() == [("card", 150_050)]

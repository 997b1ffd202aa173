"""The page of a payment link, on a real service, with a look-alike of Stripe that has a payment page of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Download, Page, expect

from tests.support.browser import assert_accessible, save_screenshot, visitor
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.fake_stripe import FakeStripe
from tests.support.links import Payer, payer_of
from tests.support.rows import Rows
from tests.support.service import Service
from tests.support.stripe_apps import StripeApp, stripe_settings

pytestmark = [on_sqlite, pytest.mark.usefixtures("audited")]

PHONE = {"width": 390, "height": 844}
SMALL_PHONE = {"width": 360, "height": 640}
# ``Payer.expire`` lets a link have ended a second ago; but then these payments would have been made after its end.
MOMENT = 1 / 86_400
ONWARDS = "http://127.0.0.1:9/bookings/BK-77"

CLINIC = {
    "CLINIC_NAME": "San Roque Clinic",
    "CLINIC_ADDRESS": "12 Mabini Street, Quezon City",
    "CLINIC_TIMEZONE": "Asia/Manila",
    "RETURN_URL_ORIGINS": "http://127.0.0.1:9",
}
DUE = {"description": "Follow-up, Dr Cruz", "starts_at": "2027-01-05T09:30:00+08:00", "fee": "1500.50"}


@pytest.fixture(scope="module")
def clinic_service(database: Database, session_stripe_app: tuple[FakeStripe, Flask]) -> Iterator[Service]:
    """Two gunicorn worker processes of a clinic whose cards Stripe carries."""
    settings = stripe_settings(session_stripe_app[0], STRIPE_CHECKOUT="hosted", **CLINIC)
    with Service.started(database.url, 2, **settings) as service:
        yield service


@dataclass
class PayPage:
    """The service, Stripe's look-alike, and a consultation that costs 1,500.50 and has a payment link."""

    service: Service
    fake: FakeStripe
    rows: Rows
    stripe_app: StripeApp
    payer: Payer
    chromium: Browser

    @property
    def url(self) -> str:
        return f"/pay/{self.payer.link_token}"

    def phone(self, **more: Any) -> Any:
        """A phone of somebody in the clinic's time zone, as a context manager."""
        given = {"viewport": PHONE, "timezone_id": "Asia/Manila", "locale": "en-PH", **more}
        return visitor(self.chromium, self.service.url, beside=self.fake.url, **given)

    # What other tests do by the page. Without it, it costs a third.

    def create_payment(self, method: str = "stripe") -> int:
        """A pending payment; its id."""
        body = {"consultation_id": 5, "amount": 1500.50, "payment_method": method}
        made = self.service.post(self.payer, "/payments", body)
        assert made.status_code == 201, made.text
        payment_id: int = made.json()["data"]["payment_id"]
        return payment_id

    def open_session(self) -> str:
        """A pending payment by card with a session at Stripe; the session's id."""
        opened = self.service.post(self.payer, f"/payments/{self.create_payment()}/checkout", {})
        assert opened.status_code == 200, opened.text
        session_id: str = opened.json()["data"]["reference"]
        return session_id

    def pay(self) -> None:
        """A payment by card, as if the browser had not come back."""
        session_id = self.open_session()
        self.fake.submit(session_id)
        self.fake.deliver(self.service.url, self.fake.session_event("completed", session_id))

    def payments(self) -> list[tuple[str, str, int]]:
        """Method, status and amount of each payment, oldest first."""
        found = self.rows.all("SELECT payment_method, status, amount_minor FROM payments ORDER BY created_at, id")
        return [(row["payment_method"], row["status"], row["amount_minor"]) for row in found]

    def money_taken(self) -> list[int]:
        """The amounts of the charges that Stripe has made."""
        return [charge["amount"] for charge in self.fake.charges.values() if charge["status"] == "succeeded"]

    def sessions(self) -> list[str]:
        """The statuses of Stripe's sessions, oldest first."""
        return [session["status"] for session in self.fake.sessions.values()]

    def pay_at_gateway(self, page: Page, button: str = "Pay") -> None:
        """On Stripe's page; afterwards the browser is back."""
        page.wait_for_url(f"{self.fake.url}/c/pay/*")
        page.get_by_role("button", name=button, exact=True).click()


PAID_ONCE = [("stripe", "completed", 150_050)]


@pytest.fixture
def clinic(clinic_service: Service, stripe_app: StripeApp, rows: Rows, chromium: Browser) -> Iterator[PayPage]:
    people, fake = stripe_app.people, stripe_app.fake
    registered = people.admin.put("/consultations/5", {"patient_id": people.patient.id, **DUE})
    assert registered.status_code == 200, registered.json
    made = clinic_service.post(people.admin, "/consultations/5/links", {"return_url": ONWARDS})
    assert made.status_code == 201, made.text
    payer = Payer(people, 5, made.json()["data"])
    fake.webhooks_to = clinic_service.url
    yield PayPage(clinic_service, fake, rows, stripe_app, payer, chromium)
    fake.webhooks_to = None


@pytest.fixture
def page(clinic: PayPage) -> Iterator[Page]:
    with clinic.phone() as page:
        yield page


def screen(page: Page, name: str) -> None:
    """Wait for a screen; it is the only one."""
    expect(page.locator(f"[data-screen={name}]")).to_be_visible()
    expect(page.locator("[data-screen]:visible")).to_have_count(1)


def choose(page: Page, method: str) -> None:
    page.get_by_test_id(f"way-{method}").click()


def press_pay(page: Page) -> None:
    page.get_by_test_id("pay").click()


def begin(page: Page, clinic: PayPage, method: str = "stripe") -> None:
    """Open the link and press *Pay*."""
    page.goto(clinic.url)
    screen(page, "choose")
    choose(page, method)
    press_pay(page)


# The whole way.


def test_a_patient_pays_on_the_gateways_page_which_is_not_given_the_link_and_is_led_on(
    page: Page, clinic: PayPage
) -> None:
    page.goto(clinic.url)
    screen(page, "choose")
    expect(page.get_by_test_id("what")).to_have_text("Follow-up, Dr Cruz Tue, Jan 5, 2027, 9:30 AM")
    expect(page.get_by_test_id("fee")).to_have_text("₱1,500.50")
    expect(page.get_by_test_id("amount")).to_be_hidden()  # a fee is never typed
    save_screenshot(page, "pay-choose")

    choose(page, "gcash")
    expect(page.get_by_test_id("pay")).to_have_text("Pay ₱1,500.50 by GCash")
    choose(page, "stripe")
    press_pay(page)
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")
    (session,) = clinic.fake.sessions.values()  # which has no id of ours to come back by either
    assert session["success_url"] == session["cancel_url"] == f"{clinic.service.url}/pay/return"
    assert clinic.payer.link_token not in str([vars(seen) for seen in clinic.fake.received])
    clinic.pay_at_gateway(page)

    screen(page, "paid")
    save_screenshot(page, "pay-paid")
    expect(page.get_by_role("heading", level=1)).to_have_text("Paid. Thank you, patient@example.com.")
    invoice = clinic.rows.one("SELECT invoice_number FROM invoices")["invoice_number"]
    for text in (invoice, "₱1,500.50 by Card", "Follow-up, Dr Cruz", "VAT 12%", "₱180.06"):
        expect(page.get_by_test_id("paid")).to_contain_text(text)
    expect(page.get_by_test_id("lead-on")).to_have_attribute("href", ONWARDS)
    assert page.url == f"{clinic.service.url}{clinic.url}"
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]
    assert page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage)]") == [[], []]

    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("This consultation is already paid")
    save_screenshot(page, "pay-already-paid")


def test_who_comes_back_without_paying_or_was_declined_can_go_on(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.get_by_role("link", name="Leave").click()

    screen(page, "pending")
    expect(page.get_by_role("heading", level=1)).to_have_text("Waiting for your card payment")
    expect(page.get_by_test_id("checked")).to_contain_text("Not paid yet")
    expect(page.get_by_test_id("pay")).to_be_hidden()
    save_screenshot(page, "pay-waiting")
    assert clinic.payments() == [("stripe", "pending", 150_050)]

    page.get_by_test_id("continue").click()
    clinic.pay_at_gateway(page, "Decline")
    page.get_by_role("link", name="Leave").click()
    screen(page, "pending")
    assert clinic.money_taken() == []

    page.get_by_test_id("continue").click()
    clinic.pay_at_gateway(page)

    screen(page, "paid")
    assert clinic.payments() == PAID_ONCE
    assert (clinic.sessions(), clinic.money_taken()) == (["complete"], [150_050])


def test_what_was_begun_can_be_cancelled_for_another_way(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.get_by_role("link", name="Leave").click()

    page.get_by_test_id("cancel").click()

    screen(page, "choose")
    expect(page.get_by_test_id("notice")).to_contain_text("Cancelled; nothing was charged")
    save_screenshot(page, "pay-cancelled")
    assert clinic.sessions() == ["expired"]
    choose(page, "bank_transfer")
    press_pay(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Send ₱1,500.50")
    assert clinic.payments() == [("stripe", "cancelled", 150_050), ("bank_transfer", "pending", 150_050)]
    assert clinic.money_taken() == []


def test_who_pays_and_never_comes_back_has_paid(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")
    (session_id,) = clinic.fake.sessions
    page.close()
    clinic.fake.submit(session_id)
    clinic.fake.deliver(clinic.service.url, clinic.fake.session_event("completed", session_id))

    with clinic.phone() as another:
        another.goto(clinic.url)
        screen(another, "paid")
        expect(another.get_by_role("heading", level=1)).to_have_text("This consultation is already paid")
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]


def test_without_a_webhook_refresh_finds_the_money(page: Page, clinic: PayPage) -> None:
    clinic.fake.webhooks_to = None
    begin(page, clinic)

    clinic.pay_at_gateway(page)

    screen(page, "paid")
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]


def test_money_that_takes_days_is_waited_for(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    clinic.pay_at_gateway(page, "Pay by bank debit")

    screen(page, "pending")
    expect(page.get_by_test_id("lead")).to_contain_text("Your bank is carrying out the payment")
    expect(page.get_by_test_id("cancel")).to_be_hidden()
    save_screenshot(page, "pay-processing")
    (session_id,) = clinic.fake.sessions
    clinic.fake.finish(session_id, paid=True)

    screen(page, "paid")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Paid. Thank you")
    assert clinic.payments() == PAID_ONCE


# More than once, and by more than one.


def test_a_double_click_pays_once(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)
    choose(page, "stripe")

    page.get_by_test_id("pay").dblclick()
    clinic.pay_at_gateway(page)

    screen(page, "paid")
    assert clinic.payments() == PAID_ONCE
    assert (clinic.sessions(), clinic.money_taken()) == (["complete"], [150_050])


def test_two_phones_with_one_link_pay_once(page: Page, clinic: PayPage) -> None:
    with clinic.phone() as other:
        for each in (page, other):
            each.goto(clinic.url)
            screen(each, "choose")
        choose(page, "stripe")
        press_pay(page)
        page.wait_for_url(f"{clinic.fake.url}/c/pay/*")

        choose(other, "bank_transfer")
        press_pay(other)
        screen(other, "pending")
        expect(other.get_by_test_id("pending-notice")).to_contain_text("You started a payment of ₱1,500.50 by Card")
        expect(other.get_by_test_id("continue")).to_have_text("Continue by card")
        expect(other.get_by_test_id("cancel")).to_be_visible()
        save_screenshot(other, "pay-other-open")

        clinic.pay_at_gateway(page)
        screen(page, "paid")
        screen(other, "paid")
    assert clinic.payments() == PAID_ONCE
    assert (clinic.sessions(), clinic.money_taken()) == (["complete"], [150_050])


def test_both_phones_on_the_gateways_page_are_on_the_same_one(page: Page, clinic: PayPage) -> None:
    with clinic.phone() as other:
        for each in (page, other):
            each.goto(clinic.url)
            choose(each, "stripe")
        for each in (page, other):
            press_pay(each)
            each.wait_for_url(f"{clinic.fake.url}/c/pay/*")
        assert page.url == other.url
        clinic.pay_at_gateway(page)
        screen(page, "paid")
        other.go_back()
        screen(other, "paid")
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]


def test_the_back_button_leads_to_what_was_begun(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")

    page.go_back()

    screen(page, "pending")
    assert clinic.payments() == [("stripe", "pending", 150_050)]
    page.get_by_test_id("continue").click()
    clinic.pay_at_gateway(page)
    screen(page, "paid")
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]


def test_a_page_from_the_browsers_memory_is_read_again(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)
    screen(page, "choose")
    clinic.fake.submit(clinic.open_session())

    # As browsers do that keep the whole page: its scripts go on where they were.
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")

    screen(page, "paid")
    expect(page.get_by_test_id("pay")).to_be_hidden()
    assert clinic.payments() == PAID_ONCE
    assert clinic.money_taken() == [150_050]


def test_a_wallet_that_comes_back_in_another_tab_finds_its_payment(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")

    another = page.context.new_page()
    another.goto("/pay/return")

    screen(another, "pending")
    assert another.url.endswith(clinic.url)


def test_another_browser_is_told_to_open_the_link_again(clinic: PayPage) -> None:
    with clinic.phone() as stranger:
        stranger.goto("/pay/return")
        expect(stranger.get_by_role("heading", level=1)).to_have_text("Open your payment link again")
        assert_accessible(stranger, "pay-return-elsewhere")


def test_without_one_of_its_style_sheets_the_page_shows_one_screen(page: Page, clinic: PayPage) -> None:
    """It came to nothing, or is still on its way: the other one must not show the screens that are hidden."""
    page.route("**/page.css*", lambda route: route.fulfill(body="", content_type="text/css"))

    page.goto(clinic.url)

    screen(page, "choose")


# Links and sessions that end.


def test_a_link_that_is_revoked_in_mid_payment_does_nothing_more(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")
    assert clinic.payer.revoke().status_code == 204

    page.get_by_role("link", name="Leave").click()

    screen(page, "invalid")
    expect(page.get_by_test_id("whom-to-ask")).to_have_text("Ask San Roque Clinic for a new link.")
    save_screenshot(page, "pay-invalid")
    assert clinic.payments() == [("stripe", "pending", 150_050)]
    assert clinic.money_taken() == []


def test_a_link_that_is_revoked_before_pay_is_pressed_pays_nothing(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)
    screen(page, "choose")
    clinic.payer.revoke()

    press_pay(page)

    screen(page, "invalid")
    assert (clinic.payments(), clinic.sessions()) == ([], [])


def test_a_link_that_is_revoked_while_its_page_waits_shows_nothing_more(page: Page, clinic: PayPage) -> None:
    clinic.open_session()
    page.goto(clinic.url)
    screen(page, "pending")
    expect(page.get_by_text("1,500.50").first).to_be_visible()

    clinic.payer.revoke()

    screen(page, "invalid")
    expect(page.get_by_text("1,500.50")).to_be_hidden()


def test_every_link_that_is_not_valid_gets_the_same_page(page: Page, clinic: PayPage) -> None:
    expired, revoked = (payer_of(clinic.stripe_app.people, 5) for _ in range(2))
    expired.expire(clinic.rows)
    assert revoked.revoke().status_code == 204
    tokens = {
        "unknown": "A" * 43,
        "cut off": clinic.payer.link_token[:-1],
        "expired": expired.link_token,
        "revoked": revoked.link_token,
    }
    for kind, token in tokens.items():
        page.goto(f"/pay/{token}")

        screen(page, "invalid")
        words = page.locator("main").inner_text().split("\n")
        assert [line for line in words if line] == [
            "!",
            "This link does not work",
            "It may have expired or been withdrawn, or not have been copied in full.",
            "Ask San Roque Clinic for a new link.",
            "San Roque Clinic",
            "12 Mabini Street, Quezon City",
        ], kind


def test_an_expired_link_shows_what_was_paid_and_changes_nothing(page: Page, clinic: PayPage) -> None:
    clinic.pay()
    clinic.payer.expire(clinic.rows, days_ago=-MOMENT)

    page.goto(clinic.url)

    screen(page, "paid")
    expect(page.get_by_test_id("receipt")).to_contain_text("₱1,500.50")


def test_an_expired_link_shows_an_unfinished_payment_for_reading(page: Page, clinic: PayPage) -> None:
    clinic.create_payment("bank_transfer")
    clinic.payer.expire(clinic.rows, days_ago=-MOMENT)

    page.goto(clinic.url)

    screen(page, "pending")
    expect(page.get_by_test_id("lead")).to_contain_text("This link has expired")
    expect(page.get_by_test_id("cancel")).to_be_hidden()
    expect(page.get_by_test_id("continue")).to_be_hidden()
    save_screenshot(page, "pay-read-only")
    assert clinic.payments() == [("bank_transfer", "pending", 150_050)]


def test_a_session_that_expires_while_the_page_is_open_is_followed_by_another(page: Page, clinic: PayPage) -> None:
    first = clinic.open_session()
    page.goto(clinic.url)
    screen(page, "pending")
    clinic.fake.pass_expiry(first)

    page.get_by_test_id("continue").click()
    clinic.pay_at_gateway(page)

    screen(page, "paid")
    assert clinic.payments() == PAID_ONCE
    assert (clinic.sessions(), clinic.money_taken()) == (["expired", "complete"], [150_050])


def test_a_payment_that_ran_out_of_time_can_be_made_again(page: Page, clinic: PayPage) -> None:
    payment_id = clinic.create_payment()
    clinic.rows.execute("UPDATE payments SET created_at = '2026-01-01 00:00:00.000000' WHERE id = :id", id=payment_id)
    expired = clinic.stripe_app.app.test_cli_runner().invoke(args=["payments", "expire"])
    assert expired.exit_code == 0, expired.output

    page.goto(clinic.url)

    screen(page, "choose")
    expect(page.get_by_test_id("notice")).to_contain_text("was not finished in time; nothing was charged")


def test_money_that_does_not_come_is_said_and_can_be_paid_again(page: Page, clinic: PayPage) -> None:
    begin(page, clinic)
    clinic.pay_at_gateway(page, "Pay by bank debit")
    screen(page, "pending")
    (session_id,) = clinic.fake.sessions
    clinic.fake.finish(session_id, paid=False)
    clinic.fake.deliver(clinic.service.url, clinic.fake.session_event("async_payment_failed", session_id))

    screen(page, "ended")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your card was not charged")
    assert_accessible(page, "pay-failed")
    page.get_by_test_id("choose-again").click()
    press_pay(page)
    clinic.pay_at_gateway(page)
    screen(page, "paid")
    assert clinic.payments() == [("stripe", "failed", 150_050), *PAID_ONCE]
    assert clinic.money_taken() == [150_050]


def test_money_that_was_returned_is_said(page: Page, clinic: PayPage) -> None:
    clinic.pay()
    payment_id = clinic.rows.one("SELECT id FROM payments")["id"]
    admin = clinic.stripe_app.people.admin
    assert clinic.service.post(admin, f"/payments/{payment_id}/refund", {"amount": 500.25}).status_code == 200
    page.goto(clinic.url)
    screen(page, "paid")
    expect(page.get_by_test_id("receipt")).to_contain_text("₱500.25")

    assert clinic.service.post(admin, f"/payments/{payment_id}/refund", {}).status_code == 200
    page.reload()

    screen(page, "ended")
    expect(page.get_by_role("heading", level=1)).to_have_text("₱1,500.50 refunded")
    assert_accessible(page, "pay-refunded")


def test_a_consultation_that_was_closed_is_not_paid_any_more(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)
    screen(page, "choose")
    closed = clinic.service.post(clinic.stripe_app.people.admin, "/consultations/5/close", {})
    assert closed.status_code == 200

    press_pay(page)
    expect(page.get_by_test_id("pay-problem")).to_contain_text("closed")
    page.reload()

    screen(page, "closed")
    assert_accessible(page, "pay-closed")
    assert (clinic.payments(), clinic.sessions()) == ([], [])


# By hand.


def test_a_payment_by_hand_says_what_to_send_until_when_and_by_which_number(page: Page, clinic: PayPage) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    begin(page, clinic, "bank_transfer")

    screen(page, "pending")
    number = str(clinic.rows.one("SELECT id FROM payments")["id"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Send ₱1,500.50")
    expect(page.get_by_test_id("lead")).to_contain_text("by Bank transfer, until ")
    expect(page.get_by_test_id("number")).to_have_text(number)
    expect(page.get_by_test_id("instructions")).to_contain_text("Transfer the amount to the clinic's bank account.")
    page.get_by_test_id("copy").click()
    expect(page.get_by_test_id("copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == number
    save_screenshot(page, "pay-by-hand")

    page.reload()  # the same again
    expect(page.get_by_test_id("number")).to_have_text(number)
    confirmed = clinic.stripe_app.people.admin.confirm(int(number), "BANK-1")
    assert confirmed.status_code == 200
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody looks at the page again
    screen(page, "paid")
    assert clinic.payments() == [("bank_transfer", "completed", 150_050)]
    assert clinic.sessions() == []

    refunded = clinic.stripe_app.people.admin.post(f"/payments/{number}/refund", {"amount": 500.25})
    assert refunded.status_code == 202
    page.reload()
    expect(page.get_by_test_id("receipt")).to_contain_text("Refund to be sent by the clinic₱500.25")
    page.get_by_test_id("language").select_option("id")
    expect(page.get_by_test_id("receipt")).to_contain_text("Pengembalian dana yang akan dikirim klinik")


def test_without_a_fee_the_amount_is_typed(page: Page, clinic: PayPage) -> None:
    people = clinic.stripe_app.people
    assert people.admin.put("/consultations/5", {"patient_id": people.patient.id}).status_code == 200
    page.goto(clinic.url)
    screen(page, "choose")
    expect(page.get_by_test_id("what")).to_have_text("Consultation 5")
    save_screenshot(page, "pay-free-amount")

    page.get_by_test_id("amount").fill("1750.25")
    choose(page, "stripe")
    expect(page.get_by_test_id("pay")).to_have_text("Pay ₱1,750.25 by Card")
    press_pay(page)
    clinic.pay_at_gateway(page)

    screen(page, "paid")
    assert (clinic.payments(), clinic.money_taken()) == ([("stripe", "completed", 175_025)], [175_025])


# The receipt, and what can be kept on paper.


def download(page: Page, name: str) -> Download:
    with page.expect_download() as saved:
        page.get_by_role("button", name=name).click()
    assert saved.value.path().read_bytes().startswith(b"%PDF-")
    return saved.value


def refund(clinic: PayPage, amount: float | None) -> None:
    (payment,) = clinic.rows.all("SELECT id FROM payments WHERE completed_at IS NOT NULL")
    admin = clinic.stripe_app.people.admin
    returned = admin.post(f"/payments/{payment['id']}/refund", {"amount": amount})
    assert returned.status_code == 200, returned.json


def test_the_receipt_is_printed_and_its_papers_are_saved(page: Page, clinic: PayPage) -> None:
    clinic.pay()
    page.goto(clinic.url)
    screen(page, "paid")
    made = clinic.rows.one("SELECT transaction_id, invoice_number FROM payments, invoices")
    for text in (made["transaction_id"], made["invoice_number"]):
        expect(page.get_by_test_id("receipt")).to_contain_text(text)
    expect(page.get_by_test_id("papers").get_by_role("button")).to_have_text(["Invoice (PDF)"])
    assert download(page, "Invoice (PDF)").suggested_filename == f"{made['invoice_number']}.pdf"

    refund(clinic, 500.25)
    page.reload()

    expect(page.get_by_test_id("papers").get_by_role("button").last).to_have_text("Credit note for ₱500.25 (PDF)")
    assert download(page, "Credit note for ₱500.25 (PDF)").suggested_filename == "CN-000001.pdf"
    page.emulate_media(media="print")
    save_screenshot(page, "pay-receipt-printed")
    expect(page.get_by_test_id("receipt")).to_be_visible()
    for control in ("papers", "print", "lead-on", "language"):
        expect(page.get_by_test_id(control).first, control).to_be_hidden()
    page.emulate_media(media="screen")

    refund(clinic, None)
    page.reload()

    screen(page, "ended")
    expect(page.get_by_test_id("ended").get_by_test_id("papers").get_by_role("button")).to_have_count(3)
    assert download(page, "Credit note for ₱1,000.25 (PDF)").suggested_filename == "CN-000002.pdf"
    save_screenshot(page, "pay-refunded")
    clinic.payer.revoke()
    page.get_by_role("button", name="Invoice (PDF)").click()
    screen(page, "invalid")


# For everybody.


def test_every_screen_is_accessible_on_a_small_phone(clinic: PayPage) -> None:
    with clinic.phone(viewport=SMALL_PHONE, locale="id-ID") as page:
        page.goto(clinic.url)
        screen(page, "choose")
        expect(page.get_by_role("group")).to_contain_text("Bagaimana Anda ingin membayar?")
        assert_accessible(page, "pay-choose")
        choose(page, "bank_transfer")
        press_pay(page)
        screen(page, "pending")
        assert_accessible(page, "pay-by-hand")
        page.get_by_test_id("cancel").click()
        screen(page, "choose")
        choose(page, "stripe")
        press_pay(page)
        page.get_by_role("link", name="Leave").click()
        screen(page, "pending")
        expect(page.get_by_test_id("checked")).to_be_visible()
        assert_accessible(page, "pay-waiting")
        page.get_by_test_id("continue").click()
        clinic.pay_at_gateway(page)
        screen(page, "paid")
        expect(page.get_by_test_id("papers").get_by_role("button")).to_have_text(["Faktur (PDF)"])
        assert_accessible(page, "pay-paid")
        refund(clinic, 500.25)
        page.reload()
        expect(page.get_by_test_id("papers").get_by_role("button")).to_have_count(2)
        assert_accessible(page, "pay-credited")
        page.goto("/pay/nothing")
        screen(page, "invalid")
        assert_accessible(page, "pay-invalid")
    assert clinic.payments()[-1] == ("stripe", "partially_refunded", 150_050)
    assert clinic.money_taken() == [150_050]


def test_the_keyboard_is_enough(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)
    screen(page, "choose")
    expect(page.get_by_role("heading", level=1)).to_be_focused()

    page.keyboard.press("Tab")
    expect(page.get_by_role("radio").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("radio").first).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("pay")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")
    page.go_back()
    screen(page, "pending")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("continue")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("cancel")).to_be_focused()
    page.keyboard.press("Enter")
    screen(page, "choose")
    assert clinic.payments() == [("stripe", "cancelled", 150_050)]
    assert clinic.money_taken() == []


def test_a_reader_elsewhere_is_told_whose_clock_it_is(clinic: PayPage) -> None:
    with clinic.phone(timezone_id="Europe/Berlin", locale="en-GB") as page:
        page.goto(clinic.url)
        expect(page.get_by_test_id("what")).to_contain_text("9:30 GMT+8")


def test_the_reader_can_change_the_language_and_come_back_in_it(page: Page, clinic: PayPage) -> None:
    page.goto(clinic.url)

    page.get_by_test_id("language").select_option("id")

    choose(page, "stripe")
    expect(page.get_by_test_id("pay")).to_contain_text("Bayar PHP")
    press_pay(page)
    (session,) = _until_on_gateway(page, clinic)
    assert session["locale"] == "id"
    clinic.pay_at_gateway(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Lunas. Terima kasih")
    assert clinic.payments() == PAID_ONCE


def _until_on_gateway(page: Page, clinic: PayPage) -> list[dict[str, Any]]:
    page.wait_for_url(f"{clinic.fake.url}/c/pay/*")
    return list(clinic.fake.sessions.values())

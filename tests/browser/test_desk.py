"""The page of the front desk, on a real service: a day of staff, by mouse and by keyboard."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from tests.support.browser import assert_accessible, save_screenshot, visitor
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.links import Payer
from tests.support.people import PASSWORD, People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows
from tests.support.service import Service

pytestmark = [on_sqlite, pytest.mark.usefixtures("audited")]

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "Asia/Manila", "locale": "en-PH"}
SMALL_PHONE = {"width": 360, "height": 640}
CLINIC = {
    "CLINIC_NAME": "San Roque Clinic",
    "CLINIC_TIMEZONE": "Asia/Manila",
    "REFUND_APPROVAL_ABOVE": "1000",
    "PUBLIC_URL": "http://127.0.0.1:9",
}


@pytest.fixture(scope="module")
def desk_service(database: Database) -> Iterator[Service]:
    """One gunicorn worker process of a clinic where a second person approves refunds above 1,000 pesos."""
    with Service.started(database.url, 1, **CLINIC) as service:
        yield service


@dataclass
class Desk:
    """The service, and the payments that staff find there, both by hand: Rosa's is pending, Ben's is confirmed."""

    service: Service
    people: People
    rows: Rows
    raw: Raw
    rosas: int
    bens: int

    def payment(self, number: int, name: str, reference: str, amount: float, **more: Any) -> int:
        """Register a consultation, and create its payment by the patient's link; its id."""
        email = f"{name.split(maxsplit=1)[0].lower()}@example.com"
        about = {"patient": {"name": name, "email": email}, "reference": reference, "fee": str(amount), **more}
        method = about.pop("method", "bank_transfer")
        registered = self.people.admin.put(f"/consultations/{number}", about)
        assert registered.status_code == 201, registered.json
        link = self.service.post(self.people.admin, f"/consultations/{number}/links", {}).json()["data"]
        created = Payer(self.people, number, link).pay(number, amount=amount, payment_method=method)
        assert created.status_code == 201, created.json
        payment_id: int = created.json["data"]["payment_id"]
        return payment_id

    def status(self, payment_id: int) -> str:
        found: str = self.rows.one("SELECT status FROM payments WHERE id = :id", id=payment_id)["status"]
        return found

    def refunds(self) -> list[tuple[str, int]]:
        return [(row["status"], row["amount_minor"]) for row in self.rows.all("SELECT * FROM refunds ORDER BY id")]


@pytest.fixture
def desk(desk_service: Service, people: People, rows: Rows, engine: Engine) -> Desk:
    desk = Desk(desk_service, people, rows, Raw(engine), 0, 0)
    desk.bens = desk.payment(581, "Ben Uy", "BK-81", 2000.0, description="Check-up")
    assert people.admin.confirm(desk.bens, "GC-0091-77Ab").status_code == 200
    more = {"description": "Follow-up, Dr Cruz", "starts_at": "2027-01-05T09:30:00+08:00"}
    desk.rosas = desk.payment(577, "Rosa Lim", "BK-77", 1500.5, **more)
    return desk


@pytest.fixture
def page(chromium: Browser, desk: Desk) -> Iterator[Page]:
    with visitor(chromium, desk.service.url, **DESK) as page:
        yield page


def sign_in(page: Page, email: str = "admin@example.com", path: str = "/desk") -> None:
    page.goto(path)
    page.get_by_test_id("email").fill(email)
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("login").click()
    expect(page.get_by_test_id("found")).not_to_be_empty()


def open_payment(page: Page, payment_id: int) -> None:
    page.locator(f"tr[data-id='{payment_id}']").click()
    expect(page.get_by_test_id("trail")).to_be_visible()


def in_queue(page: Page, queue: str) -> str:
    return page.get_by_test_id(f"queue-{queue}").locator("b").inner_text()


def test_money_that_has_come_is_marked_as_received(page: Page, desk: Desk) -> None:
    sign_in(page)
    expect(page.get_by_test_id("found")).to_have_text("2 payments.")
    assert (in_queue(page, "to_be_confirmed"), in_queue(page, "to_be_sent")) == ("1", "")
    save_screenshot(page, "desk-list")

    # She called; her money has come.
    page.keyboard.press("/")
    page.keyboard.type("rosa")
    expect(page.get_by_test_id("found")).to_have_text("1 payment.")
    open_payment(page, desk.rosas)
    expect(page.get_by_test_id("heading")).to_have_text("Rosa Lim, ₱1,500.50")
    expect(page.get_by_test_id("pills")).to_have_text("to be confirmed")
    page.get_by_test_id("transaction_id").fill("gc 0091 77AB")
    page.get_by_test_id("received").fill("1,500")
    page.get_by_test_id("confirm").click()
    expect(page.get_by_test_id("received-error")).to_have_text(
        "This payment is for ₱1,500.50; another amount cannot be taken. Nothing was recorded."
    )
    expect(page.get_by_test_id("received")).to_be_focused()
    save_screenshot(page, "desk-wrong-amount")
    page.get_by_test_id("received").fill("1,500.50")
    page.get_by_test_id("confirm").click()
    expect(page.get_by_test_id("transaction_id-error")).to_contain_text(
        f"This reference already paid payment {desk.bens} (Ben Uy"
    )
    assert desk.status(desk.rosas) == "pending"
    save_screenshot(page, "desk-reference-used")
    page.get_by_test_id("transaction_id").fill("GC-0092-11Cd")
    page.get_by_test_id("confirm").click()
    expect(page.get_by_test_id("notice")).to_have_text("Received: ₱1,500.50. The payment is paid.")
    expect(page.get_by_test_id("pills")).to_have_text("paid")
    expect(page.get_by_test_id("queue-to_be_confirmed").locator("b")).to_be_empty()
    assert desk.status(desk.rosas) == "completed"

    # What is open is in the address, and what was searched is not.
    assert page.url.endswith(f"/desk#payment={desk.rosas}")
    page.reload()
    expect(page.get_by_test_id("heading")).to_have_text("Rosa Lim, ₱1,500.50")
    page.go_back()
    expect(page.get_by_test_id("open")).to_be_hidden()
    page.go_forward()
    expect(page.get_by_test_id("heading")).to_have_text("Rosa Lim, ₱1,500.50")
    page.get_by_test_id("logout").click()
    expect(page.get_by_test_id("email")).to_be_visible()
    assert "Rosa" not in page.content()


def test_a_part_is_refunded_by_hand(page: Page, desk: Desk) -> None:
    assert desk.people.admin.confirm(desk.rosas, "REF-1").status_code == 200
    sign_in(page)
    open_payment(page, desk.rosas)
    page.get_by_test_id("refund").click()
    expect(page.get_by_test_id("amount")).to_have_value("1,500.50")
    page.get_by_test_id("amount").fill("1,500.51")
    page.get_by_test_id("refund-yes").click()
    expect(page.get_by_test_id("amount-error")).to_have_text("At most ₱1,500.50 can be refunded.")
    page.get_by_test_id("amount").fill("1.500,50")
    page.get_by_test_id("refund-yes").click()
    expect(page.get_by_test_id("amount-error")).to_have_text("Enter an amount such as 1,500.50.")
    save_screenshot(page, "desk-refund")
    assert desk.refunds() == []
    page.get_by_test_id("amount").fill("500.25")
    page.get_by_test_id("reason").fill("Came late")
    page.get_by_test_id("refund-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text("Send ₱500.25 to the patient now, then press Mark as sent.")
    expect(page.get_by_test_id("queue-to_be_sent").locator("b")).to_have_text("1")
    assert desk.refunds() == [("pending", 50_025)]
    page.get_by_test_id("settle").click()
    expect(page.get_by_test_id("reference-error")).to_have_text("Enter the reference.")
    save_screenshot(page, "desk-to-be-sent")
    page.get_by_test_id("reference").fill("OUT-1")
    page.get_by_test_id("settle").click()
    expect(page.get_by_test_id("notice")).to_have_text("Recorded: the refund was sent.")
    assert desk.refunds() == [("succeeded", 50_025)]
    expect(page.get_by_test_id("refundable")).to_have_text("₱1,000.25")
    expect(page.get_by_test_id("trail").locator("li > span")).to_have_text(
        ["Refunded", "Refund requested", "Paid", "Created"]
    )
    save_screenshot(page, "desk-refunded")


def test_a_second_person_approves_a_large_refund(page: Page, desk: Desk) -> None:
    desk.rows.execute("UPDATE users SET role = 'admin' WHERE id = :id", id=desk.people.other.id)
    sign_in(page)
    open_payment(page, desk.bens)
    page.get_by_test_id("refund").click()
    page.get_by_test_id("refund-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text(
        "Another admin has to approve the refund of ₱2,000.00; nothing was sent."
    )
    expect(page.get_by_text("You requested it; another admin has to approve it.")).to_be_visible()
    expect(page.get_by_test_id("approve")).to_have_count(0)
    page.get_by_test_id("logout").click()

    sign_in(page, "other@example.com")
    page.get_by_test_id("queue-to_be_approved").click()
    expect(page.get_by_test_id("found")).to_have_text("1 payment.")
    open_payment(page, desk.bens)
    save_screenshot(page, "desk-to-be-approved")
    page.get_by_test_id("reject").click()
    page.get_by_test_id("question-yes").click()
    expect(page.get_by_test_id("why-error")).to_have_text("Enter a reason.")
    save_screenshot(page, "desk-reject")
    page.get_by_test_id("why").fill("Ben was here")
    page.get_by_test_id("question-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text("Rejected; nothing was refunded.")
    assert desk.refunds() == [("failed", 200_000)]

    page.get_by_test_id("refund").click()
    page.get_by_test_id("refund-yes").click()
    expect(page.get_by_text("You requested it; another admin has to approve it.")).to_be_visible()
    page.get_by_test_id("logout").click()
    sign_in(page)
    open_payment(page, desk.bens)
    page.get_by_test_id("approve").click()
    page.get_by_test_id("question-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text("Approved.")
    expect(page.get_by_test_id("settle")).to_be_visible()
    assert desk.refunds() == [("failed", 200_000), ("pending", 200_000)]


def test_a_refund_that_a_colleague_made_first_is_not_made_again(page: Page, desk: Desk) -> None:
    sign_in(page)
    open_payment(page, desk.bens)
    page.get_by_test_id("refund").click()
    made = desk.people.admin.post(f"/payments/{desk.bens}/refund", {"amount": 500})
    assert made.status_code == 202, made.json

    page.get_by_test_id("amount").fill("500")
    page.get_by_test_id("refund-yes").click()

    expect(page.get_by_test_id("amount-error")).to_have_text(
        "₱1,500.00 can be refunded now, because of another refund. Nothing was refunded; look again."
    )
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("refunds")).to_contain_text("₱500.00")
    expect(page.get_by_test_id("refundable")).to_have_text("₱1,500.00")
    assert desk.refunds() == [("pending", 50_000)]


def test_cancel_review_link_and_export(page: Page, desk: Desk) -> None:
    sign_in(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_payment(page, desk.rosas)
    page.get_by_test_id("link").click()
    expect(page.get_by_test_id("notice")).to_have_text("The link is copied. It is valid for 7 days.")
    link = page.get_by_test_id("made-link").input_value()
    assert link.startswith("http://127.0.0.1:9/pay/")
    assert page.evaluate("navigator.clipboard.readText()") == link
    page.get_by_test_id("cancel").click()
    page.get_by_test_id("question-leave").click()
    assert desk.status(desk.rosas) == "pending"
    page.get_by_test_id("cancel").click()
    page.get_by_test_id("question-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text("The payment is cancelled.")
    assert desk.status(desk.rosas) == "cancelled"

    desk.rows.execute("UPDATE payments SET needs_review = 1, review_held = 1 WHERE id = :id", id=desk.bens)
    page.get_by_test_id("queue-needs_review").click()
    expect(page.get_by_test_id("found")).to_have_text("1 payment.")
    open_payment(page, desk.bens)
    page.get_by_test_id("review").click()
    page.get_by_test_id("question-yes").click()
    expect(page.get_by_test_id("notice")).to_have_text("The review is ended.")
    expect(page.get_by_test_id("found")).to_have_text("No payments.")

    page.get_by_test_id("queue-all").click()
    page.get_by_test_id("status").select_option("completed")
    page.get_by_test_id("day").fill("2026-03-14")
    with page.expect_request("**/api/v1/payments.csv?*") as asked, page.expect_download() as saved:
        page.get_by_test_id("export").click()
    query = "status=completed&created_from=2026-03-13T16%3A00%3A00.000Z&created_to=2026-03-14T16%3A00%3A00.000Z"
    assert asked.value.url.endswith(f"/payments.csv?{query}")
    assert saved.value.suggested_filename == "payments-2026-03-14.csv"


def test_one_can_work_without_a_mouse(page: Page, desk: Desk) -> None:
    page.goto("/desk")
    page.get_by_test_id("email").focus()
    page.keyboard.type("admin@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("found")).to_have_text("2 payments.")

    row = page.locator("tr button:focus")
    page.keyboard.press("j")
    expect(row).to_have_text("Rosa Lim")
    page.keyboard.press("ArrowDown")
    expect(row).to_have_text("Ben Uy")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("heading")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("transaction_id")).to_be_focused()
    page.keyboard.type("REF-1")
    page.keyboard.press("Tab")
    page.keyboard.type("1500.5")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("notice")).to_have_text("Received: ₱1,500.50. The payment is paid.")
    expect(page.get_by_test_id("heading")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("refund")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("amount")).to_be_focused()
    page.keyboard.press("Escape")  # the dialog
    expect(page.get_by_test_id("refund")).to_be_focused()
    expect(page.get_by_test_id("open")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("open")).to_be_hidden()
    expect(row).to_have_text("Rosa Lim")
    page.keyboard.press("/")
    page.keyboard.type("ben j/k")  # no keys of the page while one types
    expect(page.get_by_test_id("search")).to_have_value("ben j/k")
    expect(page.get_by_test_id("found")).to_have_text("No payments.")
    assert desk.status(desk.rosas) == "completed"


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_every_state_is_accessible(chromium: Browser, desk: Desk, size: str) -> None:
    """In Indonesian, whose words are the longer ones, on a small phone; and in English beside each other."""
    disputed = desk.payment(574, "Ana Reyes", "BK-74", 5000.0, description="X-ray", method="gcash")
    assert desk.people.admin.confirm(disputed, "REF-74").status_code == 200
    blocking = {"is_disputed": True, "needs_review": True, "review_of_dispute": True}
    desk.raw.update("payments", disputed, **blocking)
    desk.raw.dispute(disputed, due_at=datetime(2026, 12, 5, 4, tzinfo=UTC))
    phone: dict[str, Any] = {"viewport": SMALL_PHONE, "locale": "id-ID"}
    more, language = (phone, "id") if size == "phone" else (DESK, "en")
    with visitor(chromium, desk.service.url, **more) as page:
        state = f"desk-{size}"
        page.goto(f"/desk?language={language}")
        assert_accessible(page, f"{state}-sign-in")
        sign_in(page, path=f"/desk?language={language}")
        expect(page.locator("tr[data-id]")).to_have_count(3)
        assert_accessible(page, f"{state}-list")
        open_payment(page, desk.rosas)
        page.get_by_test_id("confirm").click()
        expect(page.get_by_test_id("received-error")).not_to_be_empty()
        assert_accessible(page, f"{state}-open")
        page.keyboard.press("Escape")
        open_payment(page, desk.bens)
        page.get_by_test_id("refund").click()
        expect(page.get_by_test_id("amount")).to_have_value("2.000,00" if language == "id" else "2,000.00")
        page.get_by_test_id("amount").fill("3000")
        page.get_by_test_id("refund-yes").click()
        assert_accessible(page, f"{state}-refund")


def test_names_are_text_and_never_markup(page: Page, desk: Desk) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    payment_id = desk.payment(590, "Eve Uy", "<b>BK</b>", 1000.0, description=evil)
    desk.rows.execute("UPDATE users SET name = :name WHERE email = 'eve@example.com'", name=evil)

    sign_in(page)
    open_payment(page, payment_id)

    expect(page.get_by_test_id("heading")).to_contain_text(evil)
    expect(page.locator("#open .about")).to_contain_text(evil)
    expect(page.locator(f"tr[data-id='{payment_id}']")).to_contain_text("<b>BK</b>")
    assert page.locator("main img, main script").count() == 0
    page.goto("/desk#payment=999999")
    expect(page.get_by_test_id("open-problem")).to_have_text("Payment not found")
    expect(page.get_by_test_id("heading")).to_have_text("Payment 999999")


def test_it_is_for_staff_alone(page: Page, desk: Desk) -> None:
    page.goto("/desk")
    page.get_by_test_id("email").fill(desk.people.patient.email)
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("login").click()

    expect(page.get_by_test_id("login-problem")).to_have_text("This page is for staff.")
    expect(page.get_by_test_id("search")).to_be_hidden()


# What is typed, and what it means there; null: it is refused.
AMOUNTS: dict[str, dict[str, float | None]] = {
    "en-PH": {
        "1,500.50": 1500.5,
        "1500.5": 1500.5,
        "₱ 1,000,000": 1_000_000,
        "1.500,50": None,
        "1,50": None,
        "1.505": None,
    },
    "id-ID": {
        "1.500,50": 1500.5,
        "1500,5": 1500.5,
        "1.500": 1500,
        "1,500.50": None,
        "1.50": None,
        "-5": None,
        "1e3": None,
    },
}


@pytest.mark.parametrize("locale", AMOUNTS)
def test_amounts_and_days_are_read_as_the_reader_means_them(chromium: Browser, desk: Desk, locale: str) -> None:
    with visitor(chromium, desk.service.url, locale=locale, timezone_id="America/New_York") as page:
        page.goto(f"/desk?language={locale[:2]}")
        read = page.evaluate(
            """async (texts) => {
                const { parsedAmount, midnight } = await import('/checkout/static/reader.js');
                return [texts.map(parsedAmount), midnight('2026-03-14'), midnight('2026-03-14', 1)];
            }""",
            list(AMOUNTS[locale]),
        )

    # Manila is 8 hours ahead of UTC, wherever the reader is.
    assert read == [list(AMOUNTS[locale].values()), "2026-03-13T16:00:00.000Z", "2026-03-14T16:00:00.000Z"]

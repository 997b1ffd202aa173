"""Everybody can use the page: by keyboard, with a screen reader, on a small phone, in the light and in the dark."""

from playwright.sync_api import Browser, Page, expect

from tests.browser.people import PATIENT, STAFF, choose, pay, sign_in
from tests.support.browser import assert_accessible, visitor
from tests.support.dialects import on_sqlite
from tests.support.rows import Rows
from tests.support.service import Service

pytestmark = on_sqlite

SMALL_PHONE = {"width": 360, "height": 640}


def test_every_state_is_accessible_on_a_small_phone(chromium: Browser, service: Service) -> None:
    with visitor(chromium, service.url, viewport=SMALL_PHONE) as page:
        page.goto("/?language=id")  # its words are the longer ones
        assert_accessible(page, "sign-in")
        sign_in(page, PATIENT, path="/?language=id")
        assert_accessible(page, "consultations")
        pay(page, 6, method="bank_transfer")
        assert_accessible(page, "by-hand")
        pay(page, 5)
        assert_accessible(page, "paid")
        choose(page, 5)
        page.get_by_test_id("pay").click()
        expect(page.get_by_test_id("notice")).to_be_visible()
        assert_accessible(page, "already-paid")
        page.get_by_test_id("logout").click()
        sign_in(page, STAFF, path="/?language=id")
        page.get_by_test_id("details").first.click()
        expect(page.get_by_test_id("events")).to_be_visible()
        assert_accessible(page, "staff")
        page.get_by_test_id("refund").click()
        assert_accessible(page, "refund-question")


def test_one_can_pay_without_a_mouse(page: Page, rows: Rows) -> None:
    page.goto("/")
    page.get_by_test_id("email").focus()
    page.keyboard.type(PATIENT)
    page.keyboard.press("Tab")
    page.keyboard.type("password")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("consultation-1")).to_be_visible()
    page.get_by_test_id("logout").focus()

    page.keyboard.press("Tab")  # to the consultations
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_test_id("consultation-2").get_by_role("radio")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("amount")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("method")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("pay")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/sandbox/**")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_test_id("result")).to_be_focused()
    assert rows.all("SELECT consultation_id, status FROM payments") == [{"consultation_id": 2, "status": "completed"}]


def test_progress_and_trouble_are_read_out(page: Page) -> None:
    sign_in(page)
    choose(page, 5)

    assert page.get_by_test_id("progress").get_attribute("role") == "status"
    for trouble in ("pay-problem", "login-problem", "result-problem"):
        assert page.get_by_test_id(trouble).get_attribute("role") == "alert"

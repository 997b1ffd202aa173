"""What people do on the page."""

from playwright.sync_api import Page, expect

PATIENT, STAFF = "patient@test.com", "admin@test.com"


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

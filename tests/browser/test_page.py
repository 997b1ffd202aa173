"""The page, as people use it: however they press, and whatever becomes of the network, they pay once."""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from payments_app.demo.repository import add_consultations
from tests.browser.people import PATIENT, STAFF, ApiUser, choose, pay, pay_in_sandbox, see_result, sign_in
from tests.support.browser import save_screenshot, visitor
from tests.support.commands import CommandRunner
from tests.support.cutting_proxy import Canned, CuttingProxy, proxy_to
from tests.support.databases import Database
from tests.support.dialects import on_sqlite
from tests.support.rows import Rows
from tests.support.service import Service

pytestmark = on_sqlite


def payments_of(rows: Rows, consultation_id: int) -> list[tuple[str, int]]:
    """Status and amount of each payment of a consultation, whatever became of it."""
    found = rows.all("SELECT status, amount_minor FROM payments WHERE consultation_id = :id", id=consultation_id)
    return [(row["status"], row["amount_minor"]) for row in found]


PAID_ONCE = [("completed", 500_000)]


@pytest.fixture
def proxy(service: Service) -> Iterator[CuttingProxy]:
    with proxy_to(service.url) as proxy:
        yield proxy


@pytest.fixture
def far_page(chromium: Browser, proxy: CuttingProxy) -> Iterator[Page]:
    """Somebody behind a network that loses what the test wants lost."""
    with visitor(chromium, proxy.url) as page:
        yield page


def test_a_patient_pays_and_sees_what_came_of_it(page: Page, rows: Rows) -> None:
    sign_in(page)
    save_screenshot(page, "consultations")

    pay(page, 5)

    save_screenshot(page, "paid")
    (payment,) = rows.all("SELECT * FROM payments")
    (invoice,) = rows.all("SELECT * FROM invoices")
    assert (payment["status"], payment["amount_minor"], invoice["status"]) == ("completed", 500_000, "paid")
    expect(page.get_by_test_id("result")).to_be_focused()
    expect(page.get_by_test_id("result-status")).to_have_text("paid")
    expect(page.get_by_test_id("result-vat")).to_have_text("₱600.00")
    expect(page.get_by_test_id("result-invoice")).to_have_text(f"{invoice['invoice_number']} (paid)")
    expect(page.get_by_test_id("history").get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_test_id("consultation-5")).to_contain_text("paid")


def test_a_double_click_pays_once(page: Page, rows: Rows) -> None:
    sign_in(page)
    choose(page, 5)

    page.get_by_test_id("pay").dblclick()
    pay_in_sandbox(page)

    see_result(page)
    assert payments_of(rows, 5) == PAID_ONCE


def test_enter_and_click_together_pay_once(page: Page, rows: Rows) -> None:
    sign_in(page)
    choose(page, 5)
    page.get_by_test_id("amount").focus()

    # At one moment: Enter submits the form, and so does a click.
    page.get_by_test_id("pay").evaluate("button => { button.form.requestSubmit(); button.click(); }")
    pay_in_sandbox(page)

    see_result(page)
    assert payments_of(rows, 5) == PAID_ONCE


def test_two_tabs_pay_once(far_page: Page, proxy: CuttingProxy, rows: Rows) -> None:
    sign_in(far_page)
    # As a browser opens it from a link: with what this tab knows of who is signed in.
    with far_page.expect_popup() as opened:
        far_page.evaluate("window.open('/', '_blank')")
    other = opened.value
    for tab in (far_page, other):
        choose(tab, 5)
    proxy.misbehave("silent_after", times=2)

    far_page.get_by_test_id("pay").click()
    other.get_by_test_id("pay").click()
    proxy.wait_until_silent(2)
    first, second = proxy.posts()
    proxy.behave()  # both are cut off, and go on

    for tab in (far_page, other):
        tab.wait_for_url("**/sandbox/**")
    assert far_page.url == other.url
    pay_in_sandbox(far_page)
    other.go_back()
    other.get_by_test_id("details").click()
    for tab in (far_page, other):
        see_result(tab)
        expect(tab.get_by_test_id("result-status")).to_have_text("paid")
    assert first.key == second.key
    assert payments_of(rows, 5) == PAID_ONCE


def test_whoever_reloads_in_mid_request_pays_once(far_page: Page, proxy: CuttingProxy, rows: Rows) -> None:
    sign_in(far_page)
    choose(far_page, 5)
    proxy.misbehave("silent_after")
    far_page.get_by_test_id("pay").click()
    proxy.wait_until_silent()
    save_screenshot(far_page, "sending")
    (before,) = proxy.posts()

    far_page.reload()
    proxy.behave()
    expect(far_page.get_by_test_id("consultation-5")).to_contain_text("pending")
    pay(far_page, 5)

    assert {after.key for after in proxy.posts() if after.path == before.path} == {before.key}
    expect(far_page.get_by_test_id("result-status")).to_have_text("paid")
    assert payments_of(rows, 5) == PAID_ONCE


def test_an_answer_that_is_lost_after_the_commit_is_asked_for_again(
    far_page: Page, proxy: CuttingProxy, rows: Rows
) -> None:
    sign_in(far_page)
    choose(far_page, 5)
    proxy.misbehave("lose_answer")
    proxy.misbehave("lose_answer", path="/api/v1/payments/")

    far_page.get_by_test_id("pay").click()

    expect(far_page.get_by_test_id("progress")).to_contain_text("Trying again, safely")
    save_screenshot(far_page, "trying-again")
    pay_in_sandbox(far_page)
    see_result(far_page)
    expect(far_page.get_by_test_id("result-status")).to_have_text("paid")
    assert payments_of(rows, 5) == PAID_ONCE


def test_a_server_that_restarts_in_mid_payment_is_waited_for(
    far_page: Page, proxy: CuttingProxy, service: Service, database: Database, rows: Rows
) -> None:
    sign_in(far_page)
    choose(far_page, 5)
    with Service.started(database.url, 1) as dying:
        proxy.turn_to(dying.url)
        proxy.misbehave("silent_after")
        far_page.get_by_test_id("pay").click()
        proxy.wait_until_silent()
    proxy.behave()  # the connection ends with the server
    expect(far_page.get_by_test_id("progress")).to_contain_text("Trying again, safely")

    # Other processes on the same database, as after a start. They run already: the page waits longer and longer.
    proxy.turn_to(service.url)
    pay_in_sandbox(far_page)
    see_result(far_page)

    expect(far_page.get_by_test_id("result-status")).to_have_text("paid")
    assert payments_of(rows, 5) == PAID_ONCE


def test_whoever_was_first_is_told_plainly_to_the_second(page: Page, service: Service, rows: Rows) -> None:
    sign_in(page)
    choose(page, 5)
    ApiUser(service).pay(5)

    page.get_by_test_id("pay").click()

    see_result(page)
    expect(page.get_by_role("heading", name="This consultation is already paid")).to_be_visible()
    expect(page.get_by_test_id("notice")).to_have_text(
        "This consultation is already paid; you have not been charged again."
    )
    save_screenshot(page, "already-paid")
    assert payments_of(rows, 5) == PAID_ONCE


def test_a_method_by_hand_says_what_to_do(page: Page, rows: Rows) -> None:
    sign_in(page)

    pay(page, 5, method="bank_transfer")

    number = str(rows.one("SELECT id FROM payments")["id"])
    instructions = page.get_by_test_id("instructions")
    expect(instructions).to_contain_text("Transfer the amount to the clinic's bank account.")
    expect(instructions).to_contain_text(f"Put reference {number} in the transfer's message.")
    expect(page.get_by_test_id("number")).to_have_text(number)
    save_screenshot(page, "by-hand")
    page.reload()
    page.get_by_test_id("details").click()  # the same again, at any time
    expect(page.get_by_test_id("number")).to_have_text(number)
    choose(page, 5, method="bank_transfer")
    page.get_by_test_id("pay").click()
    expect(page.get_by_test_id("notice")).to_contain_text("you have not been charged again")
    assert payments_of(rows, 5) == [("pending", 500_000)]


def test_a_wrong_password_is_told_and_lets_nobody_in(page: Page) -> None:
    page.goto("/")
    page.get_by_test_id("email").fill("patient@test.com")
    page.get_by_test_id("password").fill("wrong")

    page.get_by_test_id("login").click()

    expect(page.get_by_test_id("login-problem")).to_have_text(
        "The e-mail or the password is wrong; check both and try again."
    )
    save_screenshot(page, "wrong-password")
    expect(page.get_by_test_id("pay")).to_be_hidden()


def test_a_refusal_is_told_in_words(page: Page, rows: Rows) -> None:
    sign_in(page)
    rows.execute("UPDATE consultations SET fee_minor = 700000 WHERE id = 5")  # after the page has read it

    choose(page, 5)
    page.get_by_test_id("pay").click()

    expect(page.get_by_test_id("pay-problem")).to_contain_text("7,000.00")
    save_screenshot(page, "refused")
    assert payments_of(rows, 5) == []


def test_history_is_shown_by_fifteen(page: Page, service: Service, rows: Rows) -> None:
    patient = ApiUser(service)
    for consultation_id in range(1, 18):
        patient.create_payment(consultation_id, "gcash")
    sign_in(page)
    lines = page.get_by_test_id("history").get_by_role("listitem")
    expect(lines).to_have_count(15)

    page.get_by_test_id("more").click()

    expect(lines).to_have_count(17)
    expect(page.get_by_test_id("more")).to_be_hidden()
    save_screenshot(page, "history")
    lines.last.get_by_test_id("details").click()
    expect(page.get_by_test_id("result-status")).to_have_text("pending")
    assert rows.count("payments") == 17


def test_staff_refund_once_and_see_what_happened(chromium: Browser, service: Service, rows: Rows) -> None:
    ApiUser(service).pay(5)
    with visitor(chromium, service.url) as staff:
        sign_in(staff, STAFF)
        expect(staff.get_by_test_id("pay")).to_be_hidden()
        staff.get_by_test_id("details").first.click()
        staff.get_by_test_id("refund").click()
        expect(staff.locator("#refund-question")).to_contain_text("up to ₱5,000.00 can be refunded.")
        staff.get_by_test_id("refund-leave").click()
        assert rows.count("refunds") == 0

        staff.get_by_test_id("refund").click()
        staff.get_by_test_id("refund-amount").fill("1500")
        staff.get_by_test_id("refund-reason").fill("Came too late")
        save_screenshot(staff, "refund-question")
        staff.get_by_test_id("refund-confirm").dblclick()

        expect(staff.get_by_test_id("notice")).to_have_text("₱1,500.00 refunded.")
        expect(staff.get_by_test_id("events")).to_contain_text("refund.succeeded")
        expect(staff.get_by_test_id("result-status")).to_have_text("partially refunded")
        save_screenshot(staff, "refunded")
    (refund,) = rows.all("SELECT status, amount_minor, reason FROM refunds")
    assert refund == {"status": "succeeded", "amount_minor": 150_000, "reason": "Came too late"}
    assert rows.one("SELECT refunded_minor FROM payments")["refunded_minor"] == 150_000


def test_a_refund_by_hand_is_to_be_sent(page: Page, chromium: Browser, service: Service, rows: Rows) -> None:
    payment_id = ApiUser(service).create_payment(5, "gcash")
    ApiUser(service, STAFF).post(f"/payments/{payment_id}/confirm", transaction_id="GC-1")
    with visitor(chromium, service.url) as staff:
        sign_in(staff, STAFF)
        staff.get_by_test_id("details").first.click()
        staff.get_by_test_id("refund").click()
        staff.get_by_test_id("refund-amount").fill("1500")
        staff.get_by_test_id("refund-confirm").click()

        expect(staff.get_by_test_id("notice")).to_have_text(
            "The refund of ₱1,500.00 is recorded: send the money, then record the transfer."
        )
    sign_in(page)
    page.get_by_test_id("details").first.click()
    expect(page.get_by_test_id("result")).to_contain_text("₱1,500.00 (to be sent by the clinic)")
    assert rows.all("SELECT status, by_hand FROM refunds") == [{"status": "pending", "by_hand": True}]


def test_a_refund_is_of_the_payment_that_was_asked_about(
    chromium: Browser, service: Service, proxy: CuttingProxy, rows: Rows
) -> None:
    patient = ApiUser(service)
    first, second = patient.pay(5), patient.pay(6)
    with visitor(chromium, proxy.url) as staff:
        sign_in(staff, STAFF)
        staff.get_by_test_id("details").last.click()
        expect(staff.get_by_role("heading", name=f"Payment {first}")).to_be_visible()
        proxy.misbehave("silent_after", method="GET", path=f"/api/v1/payments/{second}")
        staff.get_by_test_id("details").first.click()
        proxy.wait_until_silent()
        staff.get_by_test_id("refund").click()
        proxy.behave()  # the other payment comes in behind the dialog
        expect(staff.locator("#result-heading")).to_have_text(f"Payment {second}")

        staff.get_by_test_id("refund-amount").fill("1000")
        staff.get_by_test_id("refund-confirm").click()

        expect(staff.get_by_test_id("notice")).to_have_text("₱1,000.00 refunded.")
    assert rows.all("SELECT payment_id, amount_minor FROM refunds") == [{"payment_id": first, "amount_minor": 100_000}]


def test_a_refund_that_nobody_answered_is_asked_for_again_as_it_was(
    chromium: Browser, service: Service, proxy: CuttingProxy, rows: Rows
) -> None:
    ApiUser(service).pay(5)
    with visitor(chromium, proxy.url) as staff:
        sign_in(staff, STAFF)
        staff.get_by_test_id("details").click()
        # Whoever is told to come back in a minute is not kept waiting for it.
        away = Canned(503, b'{"type": "/problems/away", "status": 503, "retryable": true}', {"Retry-After": "60"})
        proxy.misbehave("answer_instead", path="/api/v1/payments/", answer=away)
        staff.get_by_test_id("refund").click()
        staff.get_by_test_id("refund-amount").fill("1000")
        staff.get_by_test_id("refund-reason").fill("Came too late")
        staff.get_by_test_id("refund-confirm").click()
        expect(staff.get_by_test_id("result-problem")).to_contain_text("Sending the same refund again is safe")

        staff.get_by_test_id("refund").click()
        expect(staff.get_by_test_id("refund-amount")).to_have_value("1000")
        expect(staff.get_by_test_id("refund-reason")).to_have_value("Came too late")
        staff.get_by_test_id("refund-confirm").click()

        expect(staff.get_by_test_id("notice")).to_have_text("₱1,000.00 refunded.")
    assert len({post.key for post in proxy.posts("/api/v1/payments/")}) == 1
    assert rows.all("SELECT amount_minor FROM refunds") == [{"amount_minor": 100_000}]


def test_what_one_user_began_is_not_gone_on_with_by_the_next(far_page: Page, proxy: CuttingProxy, rows: Rows) -> None:
    sign_in(far_page)
    choose(far_page, 5)
    proxy.misbehave("silent_after")
    far_page.get_by_test_id("pay").click()
    proxy.wait_until_silent()

    far_page.get_by_test_id("logout").click()
    sign_in(far_page, STAFF, path="")
    proxy.behave()
    far_page.get_by_test_id("details").click()

    expect(far_page.get_by_test_id("result-status")).to_have_text("pending")
    assert payments_of(rows, 5) == [("pending", 500_000)]
    assert {row["actor"].split(":")[0] for row in rows.all("SELECT actor FROM payment_events")} == {"patient"}


def test_a_consultation_from_the_second_page_stays_chosen(
    page: Page, session_commands: CommandRunner, rows: Rows
) -> None:
    session_commands.ok("demo", "seed", "--consultations", "101")
    sign_in(page)

    page.get_by_test_id("more-consultations").dblclick()

    expect(page.get_by_test_id("consultations").get_by_role("radio")).to_have_count(101)
    choose(page, 101, method="bank_transfer")
    page.get_by_test_id("pay").click()
    see_result(page)
    expect(page.get_by_test_id("consultation-101")).to_contain_text("pending")
    expect(page.get_by_test_id("consultation-101").get_by_role("radio")).to_be_checked()
    assert payments_of(rows, 101) == [("pending", 500_000)]


def test_the_page_speaks_indonesian(page: Page, rows: Rows) -> None:
    sign_in(page)

    page.get_by_test_id("language").select_option("id")

    expect(page.get_by_role("heading", name="Konsultasi saya")).to_be_visible()  # and one is signed in still
    pay(page, 5)
    expect(page.get_by_test_id("result-status")).to_have_text("lunas")
    expect(page.get_by_test_id("result-vat")).to_have_text("PHP\u00a0600,00")
    expect(page.get_by_test_id("history")).to_contain_text("PHP\u00a05.000,00")
    save_screenshot(page, "indonesian")
    choose(page, 5)
    page.get_by_test_id("pay").click()
    expect(page.get_by_test_id("notice")).to_have_text("Konsultasi ini sudah dibayar; Anda tidak ditagih lagi.")
    assert payments_of(rows, 5) == PAID_ONCE


def test_a_browser_that_prefers_indonesian_is_met_in_it(chromium: Browser, service: Service) -> None:
    with visitor(chromium, service.url, locale="id-ID") as page:
        page.goto("/")

        expect(page.get_by_test_id("login")).to_have_text("Masuk")
        expect(page.get_by_test_id("language")).to_have_value("id")


def test_whoever_signs_out_leaves_no_token_behind(page: Page) -> None:
    sign_in(page)

    page.get_by_test_id("logout").click()

    expect(page.get_by_test_id("email")).to_be_visible()
    assert page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])") == "[{},{}]"


def test_of_two_consultations_that_javascript_cannot_tell_apart_the_chosen_one_is_paid(
    page: Page, app: Flask, rows: Rows
) -> None:
    patient = rows.one("SELECT id FROM users WHERE email = :email", email=PATIENT)
    last = 2**53 + 1
    with app.app_context():
        add_consultations(patient_id=patient["id"], first=last - 1, last=last, currency="PHP")
    sign_in(page)

    pay(page, last)

    expect(page.get_by_test_id(f"consultation-{last}")).to_contain_text("paid")
    expect(page.get_by_test_id(f"consultation-{last - 1}")).to_contain_text("not paid")
    expect(page.get_by_test_id("history")).to_contain_text(str(last))
    assert payments_of(rows, last) == PAID_ONCE
    assert payments_of(rows, last - 1) == []

"""The API's own page in a real browser: it explains, and it really pays."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser.people import ApiUser
from tests.support.browser import save_screenshot, visitor
from tests.support.dialects import on_sqlite
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.service import Service

pytestmark = on_sqlite

GOT = ("200", "201", "409")  # the statuses of the responses to what the tests send


def open_docs(page: Page, *names: str) -> None:
    """Open the page with the operations of these names only, and with the responses that they will get.

    Swagger UI renders all of that anew after each key: with everything, a test takes six times as long. The last tests
    show everything.
    """

    def shorten(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        paths = {
            path: {key: part for key, part in described.items() if key == "parameters" or part["operationId"] in names}
            for path, described in document["paths"].items()
        }
        for described in paths.values():
            for key, part in described.items():
                if key != "parameters":
                    part["responses"] = {code: it for code, it in part["responses"].items() if code in GOT}
        document["paths"] = {path: described for path, described in paths.items() if described.keys() - {"parameters"}}
        route.fulfill(response=response, json=document)

    page.route("**/openapi.json", shorten)
    page.goto("/docs")


def open_operation(page: Page, name: str) -> Locator:
    """Unfold an operation, such as ``payments-create_payment``."""
    operation = page.locator(f"#operations-{name}")
    operation.locator(".opblock-summary-control").click()
    return operation


def fold(operation: Locator) -> None:
    """Open, each costs Chromium as much as the whole page."""
    operation.locator(".opblock-summary-control").click()


def log_in(page: Page) -> None:
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Logged in as")


def execute(operation: Locator) -> Locator:
    """Send the request as the page suggests it; where the answer's status is shown."""
    operation.get_by_role("button", name="Execute").click()
    return operation.locator(".live-responses-table .response .response-col_status")


def test_a_wrong_password_is_told_in_words_and_with_the_right_one_the_patient_pays_once(page: Page, rows: Rows) -> None:
    """However often *Execute* is pressed."""
    open_docs(page, "create_payment")
    right = page.get_by_label("Password").input_value()
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in", exact=True).click()
    said = "Not logged in: The e-mail or the password is wrong; check both and try again."
    expect(page.get_by_role("status")).to_have_text(said)

    page.get_by_label("Password").fill(right)
    log_in(page)
    creation = open_operation(page, "payments-create_payment")
    key = creation.get_by_placeholder("Idempotency-Key", exact=True)
    answer = creation.locator(".live-responses-table")

    key.fill("morning-visit")
    expect(execute(creation)).to_have_text("201")
    expect(answer).to_contain_text("idempotency-key: morning-visit")
    execute(creation)
    expect(answer).to_contain_text("idempotent-replayed: true")
    key.fill("another-key")
    expect(execute(creation)).to_have_text("409")
    expect(answer).to_contain_text("nothing more was charged")
    expect(page.get_by_role("link", name="Every problem")).to_have_attribute("href", re.compile("/problems$"))

    assert rows.counts(*MADE_TOGETHER) == dict.fromkeys(MADE_TOGETHER, 1)
    save_screenshot(page, "docs-light-1280")


@pytest.mark.long  # its requests are examples of the document, which Schemathesis sends too
def test_staff_put_a_consultation_confirm_and_refund(page: Page, service: Service, rows: Rows) -> None:
    """Whatever the page suggests to send is sent as it stands, and taken."""
    payment_id = ApiUser(service).create_payment(5)
    open_docs(page, "confirm_payment", "refund_payment", "put_consultation")
    page.get_by_label("Demo user").select_option("admin")
    log_in(page)
    expect(page.get_by_role("status")).to_contain_text("admin@test.com")

    for name, id_wanted, status in (
        ("payments-confirm_payment", payment_id, "200"),
        ("refunds-refund_payment", payment_id, "200"),
        ("consultations-put_consultation", 99, "201"),
    ):
        operation = open_operation(page, name)
        operation.get_by_placeholder("_id").fill(str(id_wanted))
        expect(execute(operation)).to_have_text(status)
        fold(operation)
    paid = rows.one("SELECT status, received_minor, refunded_minor FROM payments")
    assert paid == {"status": "partially_refunded", "received_minor": 500_000, "refunded_minor": 150_000}
    assert rows.count("consultations", "id = 99 AND fee_minor = 500000") == 1


@contextmanager
def everything_on_a_telephone(chromium: Browser, service: Service) -> Iterator[tuple[Page, list[dict[str, Any]]]]:
    """The page with all operations, in the dark, and what the document says of each."""
    narrow = {"width": 360, "height": 740}  # pixels
    with visitor(chromium, service.url, color_scheme="dark", viewport=narrow) as page:
        document = page.request.get("/openapi.json").json()
        page.goto("/docs")
        operations = [
            operation for path in document["paths"].values() for key, operation in path.items() if key != "parameters"
        ]
        expect(page.locator(".opblock")).to_have_count(len(operations))
        yield page, operations
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_everything_fits_a_telephone_in_the_dark(chromium: Browser, service: Service) -> None:
    with everything_on_a_telephone(chromium, service) as (page, _):
        save_screenshot(page, "docs-dark-360")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(28, 32, 34)"


@pytest.mark.long  # Chromium takes a second for each operation
def test_every_conflict_can_be_read_on_a_telephone(chromium: Browser, service: Service) -> None:
    with everything_on_a_telephone(chromium, service) as (page, operations):
        read = {
            operation["operationId"]: read_examples(page, operation)
            for operation in operations
            if "409" in operation["responses"]
        }

    assert read["confirm_payment"] > 1
    assert len(read) > 1


def read_examples(page: Page, operation: dict[str, Any]) -> int:
    """Look at each example of one operation's 409; how many there were."""
    examples = operation["responses"]["409"]["content"]["application/problem+json"]["examples"]
    unfolded = open_operation(page, f"{operation['tags'][0]}-{operation['operationId']}")
    conflict = unfolded.locator("tr.response[data-code='409']")
    for name, example in examples.items():
        if len(examples) > 1:
            conflict.locator(".examples-select-element").select_option(name)
        shown = conflict.locator("pre.example")
        expect(shown).to_contain_text(example["value"]["detail"])
        assert json.loads(shown.inner_text()) == example["value"]
    fold(unfolded)
    return len(examples)

"""The example of a booking site beside the service and the sender of webhooks, all started by ``demo run``."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import assert_accessible, visitor
from tests.support.databases import ROOT, Database
from tests.support.dialects import on_sqlite
from tests.support.rows import Rows
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until_answered

pytestmark = [on_sqlite, pytest.mark.usefixtures("audited")]

SMALL_PHONE = {"width": 360, "height": 640}


@dataclass
class Demo:
    """What ``make run`` runs, on the test's database."""

    process: subprocess.Popen[bytes]
    log: Path
    service_url: str
    site_url: str


@pytest.fixture
def demo(database: Database, app: Flask, tmp_path: Path) -> Iterator[Demo]:  # noqa: ARG001  # it empties the database
    port, site_port = free_port(), free_port()
    log = tmp_path / "log"
    command = ["demo", "run", "--port", str(port), "--site-port", str(site_port), "--folder", str(tmp_path)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", *command],
            cwd=ROOT,
            env={**os.environ, "APP_ENV": "development", "DATABASE_URL": database.url, "WEB_CONCURRENCY": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    demo = Demo(process, log, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{site_port}")
    try:
        for url in (f"{demo.service_url}/healthz", demo.site_url):
            wait_until_answered(url, process, log)
        yield demo
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()


@pytest.fixture
def page(chromium: Browser, demo: Demo) -> Iterator[Page]:  # noqa: ARG001  # it is started first
    # Both the site and the service may be asked, whatever their ports.
    with visitor(chromium, "http://127.0.0.1", viewport=SMALL_PHONE) as page:
        yield page


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_a_booking_is_made_paid_cancelled_and_refunded(page: Page, demo: Demo, rows: Rows) -> None:
    state = page.get_by_role("status")
    page.goto(demo.site_url)
    assert_accessible(page, "booking-site-bookings")
    page.get_by_label("Name").fill("Maria Santos")
    page.get_by_label("E-mail address").fill("maria@example.com")
    press(page, "Book")
    expect(state).to_have_text("to be paid")
    booking_url = page.url

    press(page, "Pay")
    page.wait_for_url(f"{demo.service_url}/pay/*")
    page.get_by_test_id("way-stripe").click()
    page.get_by_test_id("pay").click()
    page.wait_for_url(f"{demo.service_url}/sandbox/checkout/*")
    press(page, "Pay")
    page.get_by_test_id("lead-on").click()

    page.wait_for_url(booking_url)
    expect(state).to_have_text("paid")  # by a webhook: nothing else tells the site
    assert_accessible(page, "booking-site-paid")
    press(page, "Cancel")
    expect(state).to_have_text("refunded")
    assert_accessible(page, "booking-site-refunded")
    heard = page.get_by_role("listitem").all_inner_texts()
    assert [re.sub(" of payment.*", "", line) for line in heard] == [
        "payment.created",
        "payment.completed",
        "refund.requested",
        "refund.succeeded",
    ]

    press(page, "Ask the payments service for news")  # the feed says what the webhooks said
    page.wait_for_url(f"{demo.site_url}/")
    expect(state).to_have_text("refunded")
    page.goto(booking_url)
    assert page.get_by_role("listitem").all_inner_texts() == heard
    assert rows.one("SELECT status, refunded_minor FROM payments") == {
        "status": "refunded",
        "refunded_minor": 150_000,
    }
    assert rows.counts("refunds", "webhook_endpoints") == {"refunds": 1, "webhook_endpoints": 1}

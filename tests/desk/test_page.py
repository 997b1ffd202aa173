"""The response with the page of the front desk; its behaviour is tested in a browser."""

import re

import pytest
from flask import Flask

from payments_app.desk.texts import TEXTS
from payments_app.payments.models.event import EVENT_TYPES
from payments_app.payments.models.refund import RefundStatus
from tests.checkout.test_page import read_page, texts_of
from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import ROOT, Database

STATIC = ROOT / "payments_app" / "desk" / "static"


def test_nothing_runs_but_modules_of_our_own(app: Flask) -> None:
    page = read_page(app, "/desk")

    assert re.findall("<script[^>]*>([^<]*)</script>", page) == [""]
    assert not re.search(r"<[^>]* (on\w+|style)=", page)
    assert not re.search(r'(src|href)="(?!/(checkout|desk)/static/)', page)


@pytest.mark.parametrize(("language", "all_payments"), [("en", "All"), ("id", "Semua")])
def test_it_is_in_the_readers_language_and_holds_no_data(app: Flask, language: str, all_payments: str) -> None:
    page = read_page(app, "/desk", **{"Accept-Language": language})

    assert f'<html lang="{language}">' in page
    assert f">{all_payments}</button>" in page
    assert texts_of(page).keys() == TEXTS.keys()
    assert client_of(app).get("/desk").headers["X-Robots-Tag"] == "noindex"


def test_everything_that_happens_has_words() -> None:
    assert {f"event_{event.replace('.', '_')}" for event in EVENT_TYPES} == {
        name for name in TEXTS if name.startswith("event_")
    }
    assert {f"refund_status_{status}" for status in RefundStatus} <= TEXTS.keys()


def test_the_modules_say_the_texts_that_there_are() -> None:
    code = "".join(module.read_text() for module in STATIC.glob("*.js"))
    composed = [name for name in re.findall(r"`((?:[a-z_]|\$\{[^}]+\})+)`", code) if "_" in name]
    patterns = [re.sub(r"\$\{[^}]+\}", r"\\w+", name) for name in composed]

    assert set(re.findall(r"say\('(\w+)'", code)) <= TEXTS.keys()
    unsaid = {text for text in TEXTS if not any(re.fullmatch(pattern, text) for pattern in patterns)}
    shared = {*re.findall(r"'(\w+)'", (ROOT / "payments_app/checkout/static/session.js").read_text()), "signing_in"}
    in_template = {name for name in TEXTS if name.startswith(("queue_", "status_"))}
    assert unsaid - shared - in_template <= set(re.findall(r"'(\w+)'", code))


def test_production_has_it_without_the_demos_hint(database: Database) -> None:
    with app_with(database.url, **PRODUCTION) as app:
        answer = client_of(app).get("/desk", base_url="https://localhost")

    assert answer.status_code == 200
    assert b"Demo:" not in answer.data

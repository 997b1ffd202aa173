"""The response with the checkout page; its behaviour is tested in a browser."""

import html
import json
import re

import pytest
from flask import Flask

from payments_app.checkout.texts import LINK_TEXTS, TEXTS
from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import ROOT, Database

CHECKOUT = ROOT / "payments_app" / "checkout"


def read_page(app: Flask, path: str = "/", **headers: str) -> str:
    with client_of(app).get(path, headers=headers) as answer:  # a file is open until the answer is read
        assert answer.status_code == 200
        return answer.get_data(as_text=True)


def texts_of(page: str) -> dict[str, str]:
    (texts,) = re.findall('data-texts="([^"]*)"', page)
    found: dict[str, str] = json.loads(html.unescape(texts))
    return found


def test_nothing_runs_but_modules_of_our_own(app: Flask) -> None:
    answer = client_of(app).get("/")
    page = answer.get_data(as_text=True)

    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert re.findall("<script[^>]*>([^<]*)</script>", page) == [""]
    assert not re.search(r"<[^>]* (on\w+|style)=", page)
    assert not re.search(r'(src|href)="(?!/checkout/static/)', page)


@pytest.mark.parametrize(
    ("path", "accepted", "language"),
    [
        ("/", "en", "en"),
        ("/", "id-ID,id;q=0.9", "id"),
        ("/?language=id", "en", "id"),
        ("/?language=en", "id", "en"),
        ("/?language=fr", "id", "id"),
        ("/", "in-ID", "id"),
        ("/", "jv,en;q=0.5", "id"),
        ("/?language=ms-MY", "en", "id"),
        ("/?language=%22%3E%3Cscript%3E", "", "en"),
    ],
)
def test_the_page_is_in_the_language_that_was_chosen(app: Flask, path: str, accepted: str, language: str) -> None:
    page = read_page(app, path, **{"Accept-Language": accepted})

    assert f'<html lang="{language}">' in page
    assert ("Kata sandi" in page) == (language == "id")
    assert texts_of(page)["paid"] == {"en": "Paid. Thank you.", "id": "Lunas. Terima kasih."}[language]


def test_the_modules_say_the_texts_that_there_are() -> None:
    code = "".join(module.read_text() for module in (CHECKOUT / "static").glob("*.js"))
    texts = TEXTS.keys() | LINK_TEXTS.keys()
    # Such as `status_${status}` and `${how}_heading`.
    composed = [name for name in re.findall(r"`((?:[a-z_]|\$\{[^}]+\})+)`", code) if "_" in name]
    patterns = [re.sub(r"\$\{[^}]+\}", r"\\w+", name) for name in composed]
    by_pattern = {text for text in texts if any(re.fullmatch(pattern, text) for pattern in patterns)}

    assert set(re.findall(r"say\('(\w+)'", code)) <= texts
    assert texts - by_pattern <= set(re.findall(r"'(\w+)'", code))


def test_the_page_can_be_taken_down(database: Database) -> None:
    with app_with(database.url, CHECKOUT_PAGE="0") as app:
        assert client_of(app).get("/").status_code == 404


@pytest.mark.parametrize(("settings", "status"), [({}, 404), ({"CHECKOUT_PAGE": "1"}, 200)])
def test_production_shows_it_only_where_it_is_wanted(database: Database, settings: dict[str, str], status: int) -> None:
    with app_with(database.url, **PRODUCTION, **settings) as app:
        answer = client_of(app).get("/", base_url="https://localhost")

        assert answer.status_code == status
        assert b"Demo:" not in answer.data


@pytest.mark.parametrize("path", ["/", "/pay/return", "/desk"])
def test_the_styles_of_a_page_define_the_colors_that_they_use(app: Flask, path: str) -> None:
    found = re.findall(r'<link rel="stylesheet" href="([^"]+)"', read_page(app, path))
    styles = "".join(read_page(app, each) for each in found)
    assert set(re.findall(r"var\((--[\w-]+)", styles)) <= set(re.findall(r"(--[\w-]+):", styles))


@pytest.mark.parametrize(
    "path",
    [
        "/checkout/static/page.js",
        "/desk/static/desk.js",
        "/desk",
        "/docs/page/docs.js",
        "/openapi.json",
        "/problems/not-found",
        "/problems/nothing",
        "/nothing",
        "/",
    ],
)
def test_no_answer_runs_or_is_framed_or_is_guessed_at(app: Flask, path: str) -> None:
    with client_of(app).get(path) as answer:  # a file is open until the answer is read
        headers = answer.headers

    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")

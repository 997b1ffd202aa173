"""The page that shows the document: how it is served. What it does in a browser is in tests/browser."""

import re
from collections.abc import Callable

from flask import Flask

from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import Database

STRICT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def test_the_page_is_there_at_once_and_runs_nothing_but_its_own_files(app: Flask) -> None:
    page = client_of(app).get("/docs")

    assert (page.status_code, page.mimetype) == (200, "text/html")
    policy = page.headers["Content-Security-Policy"]
    assert dict(directive.split(" ", 1) for directive in policy.split("; ")) == STRICT
    assert re.findall(r"<style| style=| on\w+=|<script(?![^>]* src=)", page.text) == []


def test_the_page_needs_nothing_from_elsewhere(app: Flask) -> None:
    page = client_of(app).get("/docs").text
    files = re.findall(r'<(?:link|script)[^>]* (?:href|src)="([^"]+)"', page)

    assert len(files) == 5
    for file in files:
        assert file.startswith("/docs/")
        with client_of(app).get(file) as answer:
            assert answer.status_code == 200, file


def test_production_offers_no_demo_login(databases: Callable[[str], Database]) -> None:
    with app_with(databases("postgresql").url, **PRODUCTION) as app:
        page = client_of(app).get("/docs", base_url="https://payments.example").text

    assert 'type="password"' in page
    assert "@test.com" not in page
    assert "<select" not in page
    assert re.findall(r"<input[^>]* value=", page) == []

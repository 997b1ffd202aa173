"""The token of a link stands in its address alone: in no log, no metric, no answer, and in no Referer."""

import logging

import pytest
from flask import Flask

from payments_app.observability.link_tokens import without_link_token
from payments_app.observability.logging import formatter
from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.links import exchange, make_link, payer_of
from tests.support.people import People
from tests.support.rows import EVERYTHING, Rows

TOKEN = "qIw3cJ2n8Uq0mY8oXH1vV8xJmM5uC0m2cZl0oT7rK9E"


@pytest.mark.parametrize("path", [f"/pay/{TOKEN}", "/pay/return", "/pay/unknown"])
def test_the_page_tells_no_other_site_where_it_is(app: Flask, path: str) -> None:
    answer = client_of(app).get(path)

    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Robots-Tag"] == "noindex"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert TOKEN not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/pay/{TOKEN}/", 404),
        ("GET", f"/pay/{TOKEN}/receipt", 404),
        ("GET", f"/elsewhere//pay/{TOKEN}", 404),
        ("GET", f"/pay//{TOKEN}", 404),
        ("GET", f"/PAY/{TOKEN}", 404),
        ("POST", f"/pay/{TOKEN}", 405),
        ("GET", f"/p%61y%2f{TOKEN}%2f", 404),
        ("PROPFIND", f"/pay/{TOKEN}", 405),
    ],
)
def test_an_error_page_does_not_repeat_the_token(app: Flask, method: str, path: str, status: int) -> None:
    answer = client_of(app).open(path, method=method)

    assert answer.status_code == status
    assert answer.json["instance"].endswith("/pay/*")
    assert TOKEN not in answer.text + str(answer.headers)


@pytest.mark.parametrize(("settings", "status"), [({}, 404), ({"PUBLIC_URL": "https://pay.example.org"}, 200)])
def test_production_shows_the_page_where_links_can_be_made(
    database: Database, settings: dict[str, str], status: int
) -> None:
    with app_with(database.url, **PRODUCTION, **settings) as app:
        secure = client_of(app).get(f"/pay/{TOKEN}", base_url="https://localhost")
        plain = client_of(app).get(f"/pay/{TOKEN}", base_url="http://localhost")

    assert secure.status_code == status
    assert plain.status_code == 403
    assert TOKEN not in secure.text + plain.text


def test_neither_logs_nor_metrics_nor_rows_nor_answers_have_a_token(
    people: People, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [make_link(people).json["data"]["url"].rpartition("/")[2] for _ in range(2)]
    payer = payer_of(people)
    tokens.append(payer.link_token)
    answers = [people.anonymous().get(f"/pay/{token}") for token in tokens]
    answers += [exchange(people, token) for token in [*tokens, TOKEN]]
    payment_id = payer.pay(5).json["data"]["payment_id"]
    answers += [payer.post(f"/payments/{payment_id}/{verb}") for verb in ("checkout", "confirm", "cancel")]
    answers += [people.admin.get("/consultations/5/links"), payer.revoke(), exchange(people, tokens[2])]

    lines = formatter(as_json=True)
    logged = caplog.text + "".join(lines.format(record) for record in caplog.records)
    metrics = people.anonymous().get("/metrics").text
    kept = "".join(str(rows.all(f"SELECT * FROM {table}")) for table in EVERYTHING)
    for token in [*tokens, TOKEN]:
        assert token not in logged + metrics + kept
        assert not [answer for answer in answers if token in answer.text + str(answer.headers)]
    assert '"/pay/<token>"' in metrics
    assert "'/pay/<token>'" in caplog.text
    assert payer.token not in logged + metrics + kept


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"/pay/{TOKEN}", "/pay/*"),
        (f"GET /pay/{TOKEN}?x=1 HTTP/1.1", "GET /pay/*?x=1 HTTP/1.1"),
        (
            f'{{"event": "Failed: /pay/{TOKEN}", "n": 1}}',
            '{"event": "Failed: /pay/*", "n": 1}',
        ),
        (f"https://pay.example.org/pay/{TOKEN}#top", "https://pay.example.org/pay/*#top"),
        (f"/%70ay%2F{TOKEN}", "/pay/*"),
        ('"route": "/pay/<token>"', '"route": "/pay/<token>"'),
        ("/api/v1/payments/7 100% /prepay/", "/api/v1/payments/7 100% /prepay/"),
    ],
)
def test_a_line_has_no_token(line: str, shown: str) -> None:
    assert without_link_token(line) == shown


def test_a_failing_request_is_logged_without_its_token() -> None:
    record = logging.makeLogRecord({"msg": "Exception on %s [%s]", "args": (f"/pay/{TOKEN}", "GET"), "name": "flask"})

    for as_json in (True, False):
        line = formatter(as_json=as_json).format(record)
        assert "/pay/*" in line
        assert TOKEN not in line

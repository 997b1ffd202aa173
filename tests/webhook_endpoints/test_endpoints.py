"""Webhook endpoints over HTTP: who is told of what, and secrets that are shown once."""

import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from payments_app.accounts.system_user import system_caller
from payments_app.webhook_endpoints import repository
from payments_app.webhook_endpoints.repository import NewEndpoint
from tests.api.assertions import assert_problem, nothing_written
from tests.support.api_keys import key_of
from tests.support.apps import PRODUCTION, app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.people import People, Person
from tests.support.rows import Rows

URL = "https://booking.example.org/hook"


def make(person: Any, **members: Any) -> dict[str, Any]:
    made = person.post("/webhook-endpoints", {"url": URL, **members})
    assert made.status_code == 201, made.text
    data: dict[str, Any] = made.json["data"]
    return data


def patch(person: Person, endpoint_id: int, **members: Any) -> Any:
    return person.send("PATCH", f"/webhook-endpoints/{endpoint_id}", json=members)


def test_an_endpoint_is_made_changed_and_deleted(people: People, rows: Rows) -> None:
    admin = people.admin
    made = make(admin, types=["refund.succeeded", "payment.completed", "payment.completed"], description="The site")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", made.pop("secret"))
    assert made["types"] == ["payment.completed", "refund.succeeded"]
    assert (made["url"], made["description"], made["is_enabled"]) == (URL, "The site", True)
    assert made["created_by"] == f"admin:{admin.id}"
    path = f"/webhook-endpoints/{made['id']}"
    assert admin.get(path).json["data"] == made
    other = make(admin, is_enabled=False)
    assert other["disabled_reason"] == "by_hand"
    listed = admin.get("/webhook-endpoints?per_page=1")
    assert [each["id"] for each in listed.json["data"]] == [other["id"]]
    rest = admin.get(f"/webhook-endpoints?per_page=1&cursor={listed.json['meta']['next_cursor']}")
    assert rest.json["data"] == [made]

    changed = patch(
        admin, made["id"], types=["payment.created", "*"], description=None, url="https://example.org/2"
    ).json["data"]
    assert (changed["types"], changed["description"], changed["url"]) == (["*"], None, "https://example.org/2")
    assert patch(admin, made["id"]).json["data"] == changed
    for status in (204, 404):
        assert admin.send("DELETE", path).status_code == status
    for answer in (admin.get(path), patch(admin, made["id"]), admin.get(f"{path}/deliveries")):
        assert_problem(answer, 404, code="not-found")
    assert [each["id"] for each in admin.get("/webhook-endpoints").json["data"]] == [other["id"]]
    assert rows.count("webhook_endpoints") == 2  # its counts stay
    assert rows.count("webhook_endpoints", "secret = ''") == 1


def test_a_url_is_shown_as_it_was_given_and_as_the_document_says(people: People, app: Flask) -> None:
    url = "https://b\u00fccher.example.org/hook"
    assert make(people.admin, url=url)["url"] == url
    schemas = client_of(app).get("/openapi.json").json["components"]["schemas"]
    for name in ("WebhookEndpoint", "NewWebhookEndpoint"):
        # A URI has ASCII only, and an IRI no control characters.
        assert "format" not in schemas[name]["properties"]["url"]


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "https://user:word@example.org/"}, "url"),
        ({"url": "https://example.org:99999/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": f"https://{'a' * 64}.org/"}, "url"),
        ({"url": f"https://example.org/{'a' * 2048}"}, "url"),
        ({"url": None}, "url"),
        ({"types": []}, "types"),
        ({"types": "payment.created"}, "types"),
        ({"types": None}, "types"),
        ({"types": ["payment.invented"]}, "types.0"),
        ({"types": [1]}, "types.0"),
        ({"description": "x" * 201}, "description"),
        ({"description": "a\nb"}, "description"),
        ({"is_enabled": "yes"}, "is_enabled"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_cannot_be_meant_is_refused(people: People, rows: Rows, members: dict[str, Any], field: str) -> None:
    endpoint_id = make(people.admin)["id"]
    with nothing_written(rows):
        assert_problem(people.admin.post("/webhook-endpoints", {"url": URL, **members}), 422, field)
        assert_problem(patch(people.admin, endpoint_id, **members), 422, field)


def test_production_takes_https_only_and_private_addresses_by_a_setting(database: Database, people: People) -> None:
    with app_with(database.url, **PRODUCTION, WEBHOOK_ALLOW_PRIVATE="1") as app:
        admin = people.seen_by(app).admin
        admin.token = people.token_from(app, people.admin)
        answers = [
            admin.post("/webhook-endpoints", {"url": url}, base_url="https://pay.example.org")
            for url in ("http://example.org/", "https://10.0.0.1/")
        ]
    assert [answer.status_code for answer in answers] == [422, 201]


def test_secrets_are_shown_once_and_logged_never(people: People, caplog: pytest.LogCaptureFixture) -> None:
    made = make(people.admin)
    path = f"/webhook-endpoints/{made['id']}"
    rotated = people.admin.post(f"{path}/rotate-secret", {"overlap": 3600})
    new = rotated.json["data"]["secret"]
    assert new != made["secret"]
    ping = people.admin.send("POST", f"{path}/ping")
    later = [people.admin.get(path), people.admin.get("/webhook-endpoints"), patch(people.admin, made["id"]), ping]

    assert later[0].json["data"]["previous_secret_ends_at"] is not None
    for secret in (made["secret"], new):
        assert secret not in caplog.text
        assert [answer for answer in later if secret in answer.text] == []
    assert made["secret"] not in rotated.text
    for overlap in (-1, 604_801, "1", None):
        assert_problem(people.admin.post(f"{path}/rotate-secret", {"overlap": overlap}), 422, "overlap")


def test_nothing_is_sent_to_a_disabled_endpoint(people: People, rows: Rows) -> None:
    endpoint_id = make(people.admin)["id"]
    path = f"/webhook-endpoints/{endpoint_id}"
    ping = people.admin.send("POST", f"{path}/ping").json["data"]
    patch(people.admin, endpoint_id, is_enabled=False)
    (given_up,) = people.admin.get(f"{path}/deliveries?status=failed").json["data"]
    assert (given_up["id"], given_up["last_error"]) == (ping["id"], "endpoint_disabled")
    with nothing_written(rows):
        for answer in (
            people.admin.send("POST", f"{path}/ping"),
            people.admin.send("POST", f"{path}/deliveries/{ping['id']}/retry"),
        ):
            assert_problem(answer, 409, code="webhook-endpoint-disabled")
    assert_problem(people.admin.send("POST", f"{path}/deliveries/{ping['id'] + 1}/retry"), 404, code="not-found")
    other = make(people.admin)["id"]
    answer = people.admin.send("POST", f"/webhook-endpoints/{other}/deliveries/{ping['id']}/retry")
    assert_problem(answer, 404, code="not-found")


def test_an_api_key_with_the_scope_manages_endpoints_until_it_is_revoked(people: People, rows: Rows) -> None:
    program = key_of(people, people.admin, "webhooks:write")
    endpoint_id = make(program)["id"]
    assert program.get(f"/webhook-endpoints/{endpoint_id}").json["data"]["created_by"].startswith("key:")
    rows.execute("UPDATE api_keys SET revoked_at = created_at")
    with nothing_written(rows):
        for method, path in (("POST", ""), ("PATCH", f"/{endpoint_id}"), ("DELETE", f"/{endpoint_id}")):
            assert_problem(program.send(method, f"/webhook-endpoints{path}", json={"url": URL}), 401)


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_what_was_committed_and_not_heard_of_is_done_once(app: Flask, rows: Rows, verb: str) -> None:
    """The next attempt finds what the first has committed, by its secret."""
    lost: list[Session] = []

    def lose_the_first(session: Session) -> None:
        lost.append(session)
        if len(lost) == 1:
            raise OperationalError(None, None, psycopg.OperationalError(), connection_invalidated=True)

    with app.app_context():
        caller, new = system_caller(), NewEndpoint(url=URL, types=["*"])
        old = repository.create(new, caller=caller) if verb == "rotate" else None
        event.listen(Session, "after_commit", lose_the_first)
        try:
            if old is None:
                made = repository.create(new, caller=caller)
            else:
                made = repository.rotate_secret(old.id, overlap=timedelta(hours=1), caller=caller)
        finally:
            event.remove(Session, "after_commit", lose_the_first)

    (row,) = rows.all("SELECT secret, previous_secret FROM webhook_endpoints")
    assert (row["secret"], row["previous_secret"]) == (made.secret, None if old is None else old.secret)
    assert len(lost) == 2

"""Every problem has a page that explains it, and every response with a problem leads to its page."""

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from payments_app import errors
from payments_app.api import problem_catalog
from payments_app.api.problem_catalog import CATALOG, Problem
from payments_app.errors import AppError
from tests.api.assertions import assert_problem
from tests.support import errors_page
from tests.support.apps import app_with
from tests.support.client import ApiClient, ApiResponse, client_of
from tests.support.databases import Database
from tests.support.nginx import SITE
from tests.support.people import People

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
# What Flask recognises before any code of ours runs, and a bug of ours.
OF_FLASK = {
    "bad-request",
    "method-not-allowed",
    "request-entity-too-large",
    "requested-range-not-satisfiable",
    "too-many-requests",
    "internal-error",
}


@pytest.fixture(scope="module")
def client(databases: Callable[[str], Database]) -> Iterator[ApiClient]:
    """At an app whose database no page asks for anything."""
    with app_with(databases("sqlite").url) as app:
        yield client_of(app)


def error_classes() -> Iterator[type[AppError]]:
    waiting = AppError.__subclasses__()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if error.__module__ == errors.__name__:
            yield error


def map_of_nginx(variable: str) -> dict[str, str]:
    """A ``map $status`` of nginx's site: what it says of each status."""
    (block,) = re.findall(rf"map \$status \${variable} {{\n(.*?)\n}}", SITE.read_text(), flags=re.DOTALL)
    return dict(re.findall(r'^\s+(\S+)\s+"?(.*?)"?;$', block, flags=re.MULTILINE))


def test_every_error_that_is_responded_with_is_explained_and_nothing_else() -> None:
    of_classes = [error.code for error in error_classes()]
    of_nginx = set(map_of_nginx("payments_problem").values())

    assert len(set(of_classes)) == len(of_classes), "two classes with one code"
    assert set(CATALOG) == {*of_classes, *of_nginx, *OF_FLASK}
    assert len(problem_catalog._PROBLEMS) == len(CATALOG)


def test_the_catalogue_says_of_a_class_what_the_class_says() -> None:
    for error in error_classes():
        problem = CATALOG[error.code]
        assert (problem.status, problem.text) == (error.status, error.text)
        assert problem.retryable in (error.retryable, None)
    assert [code for code, problem in CATALOG.items() if problem.retryable is None] == ["version-conflict"]


def test_titles_tell_problems_apart_and_the_order_is_that_of_the_statuses() -> None:
    assert len({problem.title for problem in CATALOG.values()}) == len(CATALOG)
    assert [problem.status for problem in CATALOG.values()] == sorted(problem.status for problem in CATALOG.values())


def test_nginx_says_of_a_problem_what_the_catalogue_says() -> None:
    titles, details = map_of_nginx("payments_title"), map_of_nginx("payments_detail")

    for status, code in map_of_nginx("payments_problem").items():
        problem = CATALOG[code]
        assert status in (str(problem.status), "default")
        assert titles[status] == problem.title
        assert details.get(status, details["default"]) == problem.text


def test_the_page_in_docs_is_the_catalogue() -> None:
    assert errors_page.PAGE.read_text() == errors_page.page(), "run make errors-page"


def test_each_problem_is_explained_to_programs_and_to_browsers(client: ApiClient) -> None:
    for problem in CATALOG.values():
        explained = client.get(problem.type)
        page = client.get(problem.type, headers=BROWSER)

        assert (explained.status_code, explained.mimetype) == (200, "application/json"), problem.code
        _assert_explains(explained.json, problem)
        assert (page.status_code, page.mimetype) == (200, "text/html"), problem.code
        assert '<html lang="en">' in page.text
        assert f"<h1>{problem.title}</h1>" in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert re.findall(r"<style| style=| on\w+=|<script|`", page.text) == []


def _assert_explains(explained: object, problem: Problem) -> None:
    assert isinstance(explained, dict)
    example = explained["example"]
    assert explained["type"] == example["type"] == problem.type
    assert explained["title"] == example["title"] == problem.title
    assert explained["status"] == example["status"] == problem.status
    assert explained["retryable"] in (example["retryable"], None)
    assert all(explained[member] for member in ("meaning", "when", "what_to_do"))
    assert explained.get("for_people") == problem.people


def test_the_list_leads_to_every_page_and_the_api_document_to_the_list(client: ApiClient) -> None:
    listed = client.get("/problems").json["problems"]
    linked = re.findall(r'href="(/problems/[^"]+)"', client.get("/problems", headers=BROWSER).text)

    assert [problem["type"] for problem in listed] == linked == [problem.type for problem in CATALOG.values()]
    assert client.get("/openapi.json").json["externalDocs"]["url"] == "problems"


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/problem+json", "application/json"),
        ("application/json, text/html", "application/json"),
        ("text/html;q=0.4, application/json;q=0.5", "application/json"),
        ("text/html", "text/html"),
        ("text/html, */*;q=0.1", "text/html"),
        ("text/*;q=x;;,,", "application/json"),
    ],
)
def test_the_reader_says_in_which_form(client: ApiClient, accept: str | None, mimetype: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = client.get("/problems/not-found", headers=headers)

    assert (answer.status_code, answer.mimetype, answer.headers["Vary"]) == (200, mimetype, "Accept")


def test_a_page_may_be_kept_for_a_while_and_asked_for_again_cheaply(client: ApiClient) -> None:
    page, other_form = client.get("/problems/not-found"), client.get("/problems/not-found", headers=BROWSER)
    head = client.head("/problems/not-found")
    again = client.get("/problems/not-found", headers={"If-None-Match": page.headers["ETag"]})

    assert page.headers["Cache-Control"] == "public, max-age=300"
    assert page.headers["ETag"] != other_form.headers["ETag"]
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(page.data)))
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["nothing", "Not-Found", "not-found/", "%00", "..%2fdocs", "<script>", "x" * 4_000])
def test_an_unknown_problem_is_a_problem(client: ApiClient, name: str) -> None:
    assert_problem(client.get(f"/problems/{name}", headers=BROWSER), 404, code="not-found")


def test_a_page_is_only_read(client: ApiClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert_problem(client.open("/problems/not-found", method=method), 405, code="method-not-allowed")


def test_below_a_prefix_the_pages_lead_to_one_another(client: ApiClient) -> None:
    below = Client(DispatcherMiddleware(Flask("nothing"), {"/clinic": client.application}))

    page = below.get("/clinic/problems/not-found", headers=BROWSER).text
    links = re.findall(r'href="([^"]+)"', page)

    assert len(links) == 4
    for link in links:
        assert link.startswith("/clinic/")
        answer = below.get(link)
        assert answer.status_code == 200, link
        answer.close()
    assert 'href="/clinic/problems/not-found"' in below.get("/clinic/problems", headers=BROWSER).text


def test_a_real_error_leads_to_the_page_that_explains_it(people: People) -> None:
    patient, anonymous = people.patient, people.anonymous()
    payment_id = patient.pay(5, key="k").json["data"]["payment_id"]
    answers = [
        patient.pay(5),
        patient.pay(5, key="k", amount=6_000),
        patient.pay(6, amount=1),
        patient.pay(999),
        patient.post(f"/payments/{payment_id}/cancel", {"expected_version": 9}),
        patient.post(f"/payments/{payment_id}/cancel", headers={"If-Match": '"9"'}),
        patient.get("/idempotency-keys/unknown"),
        people.other.get(f"/payments/{payment_id}"),
        people.admin.post(f"/payments/{payment_id}/refund"),
        anonymous.get("/api/v1/me"),
        anonymous.post("/api/login", json={"email": "nobody@example.com", "password": "wrong"}),
        anonymous.post("/api/login", data=b"{", content_type="application/json"),
        anonymous.post("/api/login", data=b" " * 70_000, content_type="application/json"),
        anonymous.post("/api/login", data=b"x", content_type="text/plain"),
        anonymous.post("/api/v1/webhooks/stripe", json={}),
        anonymous.delete("/api/login"),
        anonymous.get("/nothing"),
        anonymous.get("/docs/page/docs.css", headers={"Range": "bytes=9999999-"}),
    ]

    for answer in answers:
        _follow(anonymous, answer)
    assert len({answer.json["type"] for answer in answers}) == len(answers)


def test_so_do_a_bug_a_rate_limit_and_a_request_that_is_hardly_http(databases: Callable[[str], Database]) -> None:
    with app_with(databases("sqlite").url, RATELIMIT_ENABLED="true", RATELIMIT_FAILED_LOGINS="1 per minute") as app:
        app.add_url_rule("/bug", "bug", lambda: str(1 // 0))
        app.add_url_rule("/hardly", "hardly", lambda: request.form["nothing"])
        client = client_of(app)
        wrong = {"email": "nobody@example.com", "password": "wrong"}
        client.post("/api/login", json=wrong)

        for answer in (client.get("/bug"), client.get("/hardly"), client.post("/api/login", json=wrong)):
            _follow(client, answer)


def _follow(client: ApiClient, answer: ApiResponse) -> None:
    """The error's ``type`` is the address of its page, whose example has the members of a real response."""
    problem = answer.json
    assert problem is not None
    assert answer.status_code >= 400, answer.text
    explained = client.get(problem["type"])
    assert explained.status_code == 200, problem["type"]
    assert explained.json is not None
    assert (explained.json["title"], explained.json["status"]) == (problem["title"], answer.status_code)
    assert explained.json["retryable"] in (problem["retryable"], None)
    assert set(explained.json["example"]) | {"instance"} == set(problem), problem["type"]

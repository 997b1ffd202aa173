"""docs/roles.md names the roles and the scope of each endpoint, and each endpoint lets in those and no others."""

import re
from collections.abc import Iterator

from flask import Flask

from payments_app.accounts.models import Role, Scope
from tests.api.assertions import ApiUnderTest, assert_problem, nothing_written
from tests.support.api_keys import key_of
from tests.support.databases import ROOT
from tests.support.links import payer_of
from tests.support.people import People, Person
from tests.support.rows import Rows

PAGE = ROOT / "docs" / "roles.md"
ROW = re.compile(r"^\| `([A-Z]+) (/\S+)` \| ([a-z, ]+) \| `?([a-z:]*)`? ?\|", re.MULTILINE)
ANYONE = frozenset(["anyone"])


def documented() -> dict[tuple[str, str], frozenset[str]]:
    return {(method, path): frozenset(roles.split(", ")) for method, path, roles, _ in ROW.findall(PAGE.read_text())}


def documented_scopes() -> dict[tuple[str, str], str]:
    return {(method, path): scope for method, path, _, scope in ROW.findall(PAGE.read_text())}


def scope_of(view: object) -> str:
    """As the page writes it."""
    scope = getattr(view, "scope", None)
    return "" if scope is None else str(getattr(scope, "value", scope))


def in_code(app: Flask) -> Iterator[tuple[tuple[str, str], frozenset[str]]]:
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/"):
            path = re.sub(r"<\w+:", "<", rule.rule)
            roles = getattr(app.view_functions[rule.endpoint], "roles", ANYONE)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                yield (method, path), frozenset(map(str, roles))


def test_the_page_names_the_roles_of_every_endpoint(app: Flask) -> None:
    assert documented() == dict(in_code(app))
    assert len(documented()) > 18


def test_the_page_names_the_scope_of_every_endpoint(app: Flask) -> None:
    in_code = {
        (method, re.sub(r"<\w+:", "<", rule.rule)): scope_of(app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/")
    }

    assert documented_scopes() == in_code
    assert set(in_code.values()) - {"", "any"} <= set(Scope)


def test_a_key_without_the_scope_is_forbidden_and_changes_nothing(people: People, rows: Rows) -> None:
    """Each endpoint with every scope but its own, and those without a scope with all of them."""
    programs = {scope: key_of(people, people.admin, *(set(Scope) - {scope})) for scope in Scope}
    program = key_of(people, people.admin)
    for each in (program, *programs.values()):
        assert each.get("/me").status_code == 200  # which notes the hour of their first use
    with nothing_written(rows):
        for (method, rule), scope in documented_scopes().items():
            roles = documented()[method, rule]
            if scope == "any" or Role.ADMIN not in roles:
                continue
            path = re.sub(r"<\w+>", "5", rule).removeprefix("/api/v1")
            body: dict[str, str] | None = None if method == "GET" else {}
            if scope:
                refused = programs[Scope(scope)].send(method, path, json=body)
                assert_problem(refused, 403, code="scope-missing")
                assert refused.json["data"] == {"scope": scope}
            else:
                assert_problem(program.send(method, path, json=body), 403, code="login-required")


def test_another_role_is_forbidden_and_changes_nothing(api: ApiUnderTest) -> None:
    """Each role of a user at each endpoint that the table does not give it."""
    people = api.people
    with_role: dict[str, Person] = {
        Role.PATIENT: people.patient,
        Role.ADMIN: people.admin,
        Role.BOOKING: people.booking,
    }
    tried = 0
    with api.nothing_written():
        for (method, rule), roles in documented().items():
            path = re.sub(r"<\w+>", "5", rule).removeprefix("/api/v1")
            for role in with_role.keys() - roles if roles != ANYONE else ():
                assert_problem(with_role[role].send(method, path, json=None if method == "GET" else {}), 403)
                tried += 1
    assert tried > 10


def test_a_payer_is_forbidden_what_the_table_does_not_name(people: People) -> None:
    payer = payer_of(people)
    for (method, rule), roles in documented().items():
        if roles != ANYONE and Role.PAYER not in roles:
            path = re.sub(r"<\w+>", "5", rule).removeprefix("/api/v1")
            assert_problem(payer.send(method, path, json=None if method == "GET" else {}), 403, code="forbidden")

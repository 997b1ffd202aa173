"""docs/roles.md names the roles of each endpoint, and each endpoint lets in those and no others."""

import re
from collections.abc import Iterator

from flask import Flask

from payments_app.accounts.models import Role
from tests.api.assertions import ApiUnderTest, assert_problem
from tests.support.databases import ROOT
from tests.support.links import payer_of
from tests.support.people import People, Person

PAGE = ROOT / "docs" / "roles.md"
ROW = re.compile(r"^\| `([A-Z]+) (/\S+)` \| ([a-z, ]+) \|", re.MULTILINE)
ANYONE = frozenset(["anyone"])


def documented() -> dict[tuple[str, str], frozenset[str]]:
    return {(method, path): frozenset(roles.split(", ")) for method, path, roles in ROW.findall(PAGE.read_text())}


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

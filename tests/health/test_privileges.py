"""The privileges of the service's role: it works with those that it needs, and each one that is missing is named."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, make_url, text

from payments_app.db.base import Base
from payments_app.health import privileges
from payments_app.health.privileges import NEEDED
from tests.gateway_webhooks import tell
from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.commands import commands_on
from tests.support.databases import ROOT, Database
from tests.support.fresh_databases import engine_on
from tests.support.links import payer_of
from tests.support.people import People
from tests.support.stripe_apps import open_by_card, pay_by_card, refund, stripe_app_on

SEQUENCES = "USAGE ON ALL SEQUENCES IN SCHEMA public"


@dataclass(frozen=True)
class Restricted:
    """A role that owns nothing and has what the service needs; ``url`` connects as it does."""

    role: str
    url: str
    owner: Engine
    people: People

    def execute(self, *statements: str) -> None:
        with self.owner.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def revoke(self, what: str) -> None:
        self.execute(f'REVOKE {what} FROM "{self.role}"')

    def grant(self, what: str) -> None:
        self.execute(f'GRANT {what} TO "{self.role}"')


@pytest.fixture
def restricted(postgresql: Database) -> Iterator[Restricted]:
    """A database of which the role has exactly ``NEEDED``; the people and their consultations are there."""
    role = f"of-{make_url(postgresql.url).database}"
    with engine_on(postgresql.url) as owner, app_with(postgresql.url) as app:
        one = Restricted(role, f"{postgresql.url}&options=-c role={role}", owner, People(app, patient=range(1, 21)))
        one.execute(f'CREATE ROLE "{role}"')
        for table, wanted in NEEDED.items():
            one.grant(f"{', '.join(wanted)} ON {table}")
        one.grant(SEQUENCES)
        try:
            yield one
        finally:
            one.execute(f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


def test_every_table_is_decided_upon() -> None:
    assert NEEDED.keys() == {*Base.metadata.tables, "alembic_version"}


def test_the_page_lists_what_is_needed() -> None:
    page = (ROOT / "docs" / "health.md").read_text()
    section = page.partition("## Privileges of the database role\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    listed = {
        table: {*re.findall("[A-Z]{6}", wanted)} for tables, wanted in rows for table in re.findall(r"`(\w+)`", tables)
    }

    assert listed == {table: {*wanted} for table, wanted in NEEDED.items()}


def test_the_service_works_with_what_it_needs(restricted: Restricted) -> None:
    with stripe_app_on(restricted.url, restricted.people) as stripe:
        people, fake = stripe.people, stripe.fake
        assert client_of(stripe.app).get("/readyz").status_code == 200
        paid = pay_by_card(people, fake, 1)
        (intent,) = fake.intents
        assert refund(people.admin, paid, amount=1000).status_code == 200
        tell(stripe, fake.dispute_event("created", fake.dispute(intent, 100, status="needs_response")))
        for consultation, act in ((2, "cancel"), (3, "refresh")):
            pending, _ = open_by_card(people, consultation)
            assert people.patient.post(f"/payments/{pending}/{act}").status_code == 200
        assert payer_of(people, 4).pay(4).status_code == 201
        registration = {"patient": {"email": "new@example.com", "name": "New"}, "fee": 5000}
        assert people.booking.put("/consultations/30", registration).status_code == 201
        assert people.booking.post("/consultations/30/close").status_code == 200
    with commands_on(restricted.url) as commands:
        commands.ok("idempotency", "prune")
        commands.ok("payments", "expire")
        commands.ok("payments", "resume")
        commands.ok("payments", "audit")
        commands.ok("users", "disable", "new@example.com")
        assert "ok    privileges   the database role has those that it needs" in commands.run("check").output


def test_each_one_that_is_missing_is_named_with_the_statement_that_gives_it(restricted: Restricted) -> None:
    needed = [(table, privilege) for table, wanted in NEEDED.items() for privilege in wanted]
    with app_with(restricted.url) as app, app.app_context():
        for table, privilege in needed:
            restricted.revoke(f"{privilege} ON {table}")
            (grant,) = privileges.missing_grants()
            assert grant == f'GRANT {privilege} ON TABLE {table} TO "{restricted.role}"'
            restricted.execute(grant)
        restricted.revoke(SEQUENCES)
        grants = privileges.missing_grants()
        assert f'GRANT USAGE ON SEQUENCE payment_events_id_seq TO "{restricted.role}"' in grants
        restricted.execute(*grants)
        assert privileges.missing_grants() == []


def test_some_columns_are_enough_and_so_is_what_a_group_has(restricted: Restricted) -> None:
    with app_with(restricted.url) as app, app.app_context():
        restricted.revoke("UPDATE ON payments")
        restricted.grant("UPDATE (status, version) ON payments")
        restricted.revoke("INSERT ON tax_records")
        restricted.execute("GRANT INSERT ON tax_records TO PUBLIC")

        assert privileges.missing_grants() == []


def test_without_one_no_payment_is_taken_and_nothing_is_a_fault_of_ours(restricted: Restricted) -> None:
    with app_with(restricted.url) as app:
        patient, admin = (person := restricted.people.seen_by(app)).patient, person.admin
        assert patient.pay(1).status_code == 201
        restricted.revoke("INSERT ON tax_records")
        restricted.revoke("SELECT ON disputes")

        # The readiness check has run a moment ago: it is the statement itself that the database refuses.
        refused = [patient.pay(2), admin.get("/disputes")]
        ready = client_of(app).get("/readyz")
        later = patient.pay(3)

        for answer in (*refused, ready, later):
            assert (answer.status_code, answer.json["type"]) == (503, "/problems/not-ready")
            assert int(answer.headers["Retry-After"]) > 0
        assert ready.json["data"] == later.json["data"] == {"failed": ["privileges"]}

        with app.app_context():
            restricted.execute(*privileges.missing_grants())
        assert [patient.pay(2).status_code, admin.get("/disputes").status_code] == [201, 200]


def test_an_audit_that_could_not_look_exits_with_2(restricted: Restricted) -> None:
    restricted.revoke("SELECT ON refunds")
    with commands_on(restricted.url) as commands:
        audit, check = commands.run("payments", "audit"), commands.run("check")

    assert (audit.exit_code, audit.stdout) == (2, "")
    assert "InsufficientPrivilege 42501: permission denied for table refunds" in audit.stderr
    assert "Traceback" not in audit.stderr
    assert check.exit_code == 1
    grant = f'GRANT SELECT ON TABLE refunds TO "{restricted.role}"'
    assert f"bad   privileges   the database role lacks privileges: {grant}\n" in check.output


@pytest.mark.parametrize("table", ["alembic_version", "payments"])
def test_without_privileges_nothing_is_said_of_what_could_not_be_looked_at(restricted: Restricted, table: str) -> None:
    restricted.revoke(f"ALL ON {table}")
    with commands_on(restricted.url) as commands:
        lines = [line.split(maxsplit=2) for line in commands.run("check").output.splitlines()]

    assert {what for verdict, what, _ in lines if verdict == "bad"} == {"privileges"}
    assert not {"migrations", "index", "checks", "currency"} & {what for _, what, _ in lines}
    assert ["note", "skipped", "all other checks of the database, until privileges is ok"] in lines


def test_a_schema_that_the_role_may_not_use_is_said(restricted: Restricted) -> None:
    restricted.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    with commands_on(restricted.url) as commands:
        (said,) = [line for line in commands.run("check").output.splitlines() if line.split()[1] == "session"]

    assert said.endswith(
        f'the role may not use the schema of our tables: GRANT USAGE ON SCHEMA public TO "{restricted.role}"'
    )

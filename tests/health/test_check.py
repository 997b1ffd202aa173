"""``flask check`` sees what is missing, and says what an operator should know."""

from pathlib import Path

import pytest
from sqlalchemy import text

from payments_app import clock
from payments_app.db import engine as engines
from payments_app.db import transaction
from tests.health.conftest import Alter, read_only
from tests.support.apps import PRODUCTION, app_with, engine_of
from tests.support.commands import commands_on
from tests.support.databases import Database
from tests.support.fresh_databases import engine_on
from tests.support.guards import DROP_CHECK, DROP_INDEX, SPOILT_CHECKS
from tests.support.people import People
from tests.support.raw_rows import MOMENT, Raw
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows
from tests.support.stripe_apps import fake_stripe, stripe_settings

SOUND = (
    "settings",
    "database",
    "session",
    "privileges",
    "migrations",
    "index",
    "checks",
    "currency",
    "endpoints",
    "redis",
    "method",
)
LOUDER = ("ok", "note", "bad")


def lines_of(database: Database, **settings: str) -> list[tuple[str, str, str]]:
    """The verdict, of what, and the rest of each line; the exit code agrees with the verdicts."""
    with commands_on(database.url, **settings) as commands:
        result = commands.run("check")
    lines = [tuple(line.split(maxsplit=2)) for line in result.stdout.splitlines()]
    assert result.exit_code == (1 if "bad" in {verdict for verdict, *_ in lines} else 0), result.output
    return lines  # type: ignore[return-value]  # each line has all three


def verdicts(database: Database, **settings: str) -> dict[str, str]:
    """The worst that is said of each thing."""
    found: dict[str, str] = {}
    for verdict, what, _ in lines_of(database, **settings):
        found[what] = max(verdict, found.get(what, "ok"), key=LOUDER.index)
    return found


def test_a_migrated_database_is_sound(own_database: Database, redis_server: RedisServer) -> None:
    found = verdicts(own_database, **redis_server.settings)

    found.pop("durability", None)  # the server of the tests has no fsync: test_session.py asks one that has
    clock = () if own_database.url.startswith("sqlite") else ("clock",)
    assert found == dict.fromkeys((*SOUND, *clock), "ok")


def test_without_the_index_nothing_is_sound(own_database: Database, alter: Alter) -> None:
    alter(own_database, DROP_INDEX)

    found = verdicts(own_database)

    assert (found["index"], found["checks"], found["migrations"]) == ("bad", "ok", "ok")


def test_unpaid_consultations_in_another_currency_are_counted(own_database: Database) -> None:
    with app_with(own_database.url) as app:
        people = People(app)
        people.add_consultations("patient", 1, 4)
        assert people.admin.post("/consultations/4/close").status_code == 200  # nobody can register it again
        paid, _pending = (people.patient.pay(consultation).json["data"]["payment_id"] for consultation in (1, 2))
        assert people.patient.confirm(paid).status_code == 200

    found = {what: (verdict, rest) for verdict, what, rest in lines_of(own_database, PAYMENT_CURRENCY="USD")}

    assert found["currency"][0] == "note"
    assert found["currency"][1].startswith("unpaid consultations in another currency than USD: 2;")
    assert verdicts(own_database)["currency"] == "ok"


def test_webhook_endpoints_in_trouble_are_noted(own_database: Database) -> None:
    with app_with(own_database.url) as app:
        raw, now = Raw(engine_of(app)), clock.now()
        raw.webhook_endpoint(disabled_at=now, disabled_reason="by_hand")
        assert verdicts(own_database)["endpoints"] == "ok"
        raw.webhook_endpoint(disabled_at=now, disabled_reason="gone")
        raw.webhook_delivery(raw.webhook_endpoint(failing_since=now))  # a ping of long ago

    found = [(verdict, rest) for verdict, what, rest in lines_of(own_database) if what == "endpoints"]

    assert [verdict for verdict, _ in found] == ["note"] * 3
    assert [
        word for word, (_, rest) in zip(("410", "nothing now", "send run"), found, strict=True) if word in rest
    ] == [*("410", "nothing now", "send run")]


def test_references_by_hand_that_are_not_compared_are_counted(own_database: Database) -> None:
    with app_with(own_database.url) as app:
        people = People(app)
        people.add_consultations("patient", 1, 2)
        for consultation in (1, 2):
            made = people.patient.pay(consultation, payment_method="gcash").json["data"]["payment_id"]
            assert people.admin.confirm(made, f"REF {consultation}").status_code == 200
        assert "references" not in verdicts(own_database)
        Rows(engine_of(app)).execute("UPDATE payments SET normalized_reference = NULL WHERE consultation_id = 2")

    found = {what: (verdict, rest) for verdict, what, rest in lines_of(own_database)}

    assert found["references"][0] == "note"
    assert found["references"][1].endswith("others: 1; payments audit lists them")


def test_what_cannot_be_counted_is_said(postgresql: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOCK_TIMEOUT_MS", 100)
    monkeypatch.setattr(transaction, "LOCK_PATIENCE_SECONDS", 0)
    with engine_on(postgresql.url) as engine, engine.begin() as somebody:
        somebody.execute(text("LOCK TABLE consultations, payments IN ACCESS EXCLUSIVE MODE"))
        found = {what: (verdict, rest) for verdict, what, rest in lines_of(postgresql)}

    for what in ("currency", "references"):
        assert found[what][0] == "note"
        assert "could not be counted: LockNotAvailable" in found[what][1]


@pytest.mark.parametrize("spoilt", SPOILT_CHECKS)
def test_a_check_that_is_missing_or_altered_is_seen(postgresql: Database, alter: Alter, spoilt: str) -> None:
    instead = SPOILT_CHECKS[spoilt]
    alter(postgresql, DROP_CHECK, *([instead] if instead else []))

    assert verdicts(postgresql)["checks"] == "bad"


def test_a_database_that_was_never_migrated_is_seen(own_database: Database, alter: Alter) -> None:
    alter(own_database, "UPDATE alembic_version SET version_num = '0001'")

    found = verdicts(own_database)

    assert (found["database"], found["migrations"], found["index"]) == ("ok", "bad", "ok")


def test_what_cannot_be_reached_is_said_and_does_not_end_it(own_database: Database) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:9/nothing", own_database.close)

    found = verdicts(away, REDIS_URL="redis://127.0.0.1:9/0")

    assert (found["database"], found["skipped"], found["redis"]) == ("bad", "note", "note")
    assert not {"index", "checks", "currency", "references", "clock"} & found.keys()  # they need a database


def test_what_the_database_refuses_is_said_in_the_drivers_words_and_once(postgresql: Database) -> None:
    refused = Database(f"{postgresql.url}&nonsense=1", postgresql.close)
    away = Database("postgresql+psycopg://nobody@127.0.0.1:9/nothing", postgresql.close)

    said = {what: detail for verdict, what, detail in lines_of(refused, **PRODUCTION) if verdict == "bad"}

    assert said.keys() == {"database"}
    assert said["database"].endswith('ProgrammingError: invalid connection option "nonsense"')
    assert "port 9 failed: Connection refused" in str(lines_of(away))


def test_a_database_that_takes_nothing_in_is_seen(postgresql: Database, alter: Alter) -> None:
    read_only(alter, postgresql, "on")

    assert [(what, detail.partition(":")[0]) for verdict, what, detail in lines_of(postgresql) if verdict == "bad"] == [
        ("database", "read-only")
    ]


def test_stripe_is_reached_and_knows_the_key(own_database: Database) -> None:
    with fake_stripe() as fake:
        found = verdicts(own_database, **stripe_settings(fake))

        assert (found["gateway"], found["clock"]) == ("ok", "ok")
        assert [request.path.rpartition("/")[0] for request in fake.received] == ["/v1/payment_intents"]
        assert not fake.intents


def test_a_key_that_stripe_does_not_know_is_bad_and_is_not_shown(own_database: Database) -> None:
    with fake_stripe() as fake:
        lines = lines_of(own_database, **stripe_settings(fake, STRIPE_API_KEY="sk_test_somebody_elses"))

    assert [verdict for verdict, what, _ in lines if what == "gateway"] == ["bad"]
    assert "somebody" not in str(lines)


@pytest.mark.parametrize("trouble", ["drop", "error_before"])
def test_a_stripe_that_does_not_answer_is_bad_and_asked_once(own_database: Database, trouble: str) -> None:
    with fake_stripe() as fake:
        fake.misbehave(trouble, method="GET", path="/v1", times=None)  # type: ignore[arg-type]  # one of its modes
        found = verdicts(own_database, **stripe_settings(fake))

        assert found["gateway"] == "bad"
        assert len(fake.received) == 1


@pytest.mark.parametrize(("seconds", "verdict"), [(2, "ok"), (30, "note"), (-30, "note"), (200, "bad"), (-200, "bad")])
def test_a_clock_that_is_not_stripes_is_seen(postgresql: Database, seconds: int, verdict: str) -> None:
    with fake_stripe() as fake:
        fake.set_clock_ahead(seconds)

        lines = lines_of(postgresql, **stripe_settings(fake))

    clocks = {detail.partition(":")[0].rpartition(" ")[2]: said for said, what, detail in lines if what == "clock"}
    assert clocks == {"stripe's": verdict, "database's": "ok"}


def test_stripe_without_a_webhook_secret_is_bad(own_database: Database) -> None:
    with fake_stripe() as fake:
        assert verdicts(own_database, **stripe_settings(fake, STRIPE_WEBHOOK_SECRET=""))["webhooks"] == "bad"
        assert "webhooks" not in verdicts(own_database, **stripe_settings(fake))


def test_production_without_a_proxy_is_noted(own_database: Database) -> None:
    assert verdicts(own_database, **PRODUCTION)["proxies"] == "note"
    assert "proxies" not in verdicts(own_database, **PRODUCTION, TRUSTED_PROXIES="1")
    assert "proxies" not in verdicts(own_database)


def test_a_sandbox_in_production_is_noted(own_database: Database) -> None:
    assert verdicts(own_database, **PRODUCTION, ALLOW_SANDBOX_GATEWAY="1")["method"] == "note"


def test_the_demos_people_with_their_published_password_are_bad_in_production(own_database: Database) -> None:
    with commands_on(own_database.url) as commands:
        commands.ok("demo", "seed", "--consultations", 1)
    assert "users" not in verdicts(own_database)
    assert verdicts(own_database, **PRODUCTION)["users"] == "bad"

    with commands_on(own_database.url, **PRODUCTION) as commands:
        for email in ("patient@test.com", "other@test.com", "admin@test.com"):
            commands.ok("users", "disable", email)

    assert "users" not in verdicts(own_database, **PRODUCTION)


def test_it_may_be_asked_from_any_folder(
    own_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert verdicts(own_database)["migrations"] == "ok"


def test_users_whose_address_is_another_users_in_another_spelling_are_noted(
    own_database: Database, alter: Alter
) -> None:
    with engine_on(own_database.url) as engine:
        for number, disabled_at in [(11, None), (12, None), (13, MOMENT)]:
            Raw(engine).user(id=number, email=f"{number}@b.example", disabled_at=disabled_at)
    (line,) = [line for line in lines_of(own_database) if line[1] == "users"]

    assert line[0] == "note"
    assert "users 11, 12 works in one spelling" in line[2]

    alter(own_database, "UPDATE users SET normalized_email = email")
    assert "users" not in verdicts(own_database)

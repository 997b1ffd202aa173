"""One e-mail address is one user, in whatever spelling it is typed and wherever."""

import sys
import unicodedata

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from payments_app.accounts.emails import is_address, normalized
from payments_app.accounts.models import Role
from payments_app.accounts.repository import NewUser, add_user, find_credentials
from payments_app.errors import UserExists
from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.commands import CommandRunner
from tests.support.databases import Database
from tests.support.people import PASSWORD, People
from tests.support.raw_rows import Raw
from tests.support.rows import Rows

COMPOSED, DECOMPOSED = "jos\u00e9@m\u00fcnchen.example", "jose\u0301@mu\u0308nchen.example"

# Spellings of one address in each line; the first is how it is stored.
SPELLINGS = [
    [
        "jos\u00e9@xn--mnchen-3ya.example", COMPOSED, DECOMPOSED, COMPOSED.upper(), "Jose\u0301@XN--MNCHEN-3YA.Example",
        "jos\u00e9@m\u00fcnchen\u3002example", "jos\u00e9@\uff4d\u00fcnchen.example",
    ],
    ["\u13ea\u13a0@b.example".lower(), "\u13ea\u13a0@b.example", "\u13ea\uab70@B.example"],  # Cherokee folds upwards
    ["\u03c3\u03bf\u03c3@b.example", "\u03a3\u039f\u03a3@b.example", "\u03c3\u03bf\u03c2@b.example"],  # final sigma
    ["i\u0307zmir@b.example", "\u0130zmir@b.example", "I\u0307ZMIR@b.example"],  # a dotted capital I
    ["strasse@xn--strae-oqa.example", "stra\u00dfe@stra\u00dfe.example", "STRASSE@STRA\u1e9eE.example"],
    ["plain@b.example", "Plain@B.EXAMPLE", "PLAIN@\uff22.example"],
]  # fmt: skip

NO_ADDRESSES = [
    "a\tb@c.example", "a@\u00fc..example", "\u00df" * 130 + "@b.example",
    "nobody", "@b.example", "a@", "a b@c.example", "a\u00a0b@c.example", "a\u200bb@c.example", "a\u202eb@c.example",
    "a\u0378b@c.example", "a@b\u2603\u200e.example", "a@\ud800.example", "a\x00b@c.example", "a@" + "\u00fc" * 70,
]  # fmt: skip


def create(commands: CommandRunner, email: str) -> str:
    return commands.ok("users", "create", email, "--name", "Joy", "--password-stdin", answer=f"{PASSWORD}\n")


def log_in(app: Flask, email: str, password: str = PASSWORD) -> int:
    return client_of(app).post("/api/login", json={"email": email, "password": password}).status_code


def test_every_spelling_finds_one_user_everywhere(
    commands: CommandRunner, app: Flask, people: People, rows: Rows
) -> None:
    spellings = SPELLINGS[0]
    create(commands, DECOMPOSED)

    assert rows.all("SELECT email, normalized_email FROM users WHERE name = 'Joy'") == [
        {"email": spellings[0], "normalized_email": spellings[0]}
    ]
    for number, spelling in enumerate(spellings, 100):
        options = ("--name", "Joy", "--password-stdin")
        refusal = commands.refused("users", "create", spelling, *options, answer=f"{PASSWORD}\n")
        assert refusal == "Error: A user with this e-mail address already exists; use another address."
        assert log_in(app, spelling) == 200, ascii(spelling)
        assert commands.ok("users", "token", spelling).count(".") == 2
        put = people.booking.put(f"/consultations/{number}", {"patient_email": spelling, "fee": 5000})
        assert put.status_code == 201, put.json
        (again,) = commands.json("consultations", "put", number, "--patient", spelling, "--fee", "5000")
        assert again["is_new"] is False
    commands.ok("users", "disable", COMPOSED)
    assert log_in(app, DECOMPOSED) == 401
    assert rows.count("users", "name = 'Joy'") == 1


def test_every_spelling_is_the_same_user(app: Flask, rows: Rows) -> None:
    with app.app_context():
        for number, spellings in enumerate(SPELLINGS):
            new = [
                NewUser(email=spelling, name=f"User {number}", role=Role.PATIENT, password_hash="none")
                for spelling in reversed(spellings)
            ]
            user = add_user(new[0])
            assert user.email == spellings[0]
            for again in new:
                found = find_credentials(again.email)
                assert found is not None, ascii(again.email)
                assert found.user_id == user.id
                with pytest.raises(UserExists):
                    add_user(again)
    assert rows.count("users") == len(SPELLINGS)


def test_spellings_share_the_attempts_at_a_password(database: Database, people: People) -> None:
    with app_with(database.url, RATELIMIT_ENABLED="1") as app:
        people.seen_by(app)
        guesses = [log_in(app, email, "a guess") for email in [*SPELLINGS[0], *SPELLINGS[0]][:6]]

    assert guesses == [401, 401, 401, 401, 401, 429]


def test_addresses_that_no_spelling_joins_stay_apart() -> None:
    apart = [
        "jos\u00e9@b.example", "jose@b.example", "j\u00f3se@b.example", "jos\u00e9@b.example.org",
        "a@stra\u00dfe.example", "a@strasse.example",
    ]  # fmt: skip

    assert len({normalized(email) for email in apart}) == len(apart)


def test_no_locale_of_a_database_lowers_what_is_normalized(engine: Engine) -> None:
    """Or else ``ck_users_email_lower_case`` would refuse it, and to add the user would be an error of ours."""
    printable = "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isprintable())
    folded = "\n".join(normalized(f"{character}@b.example").partition("@")[0] for character in printable)
    collations = [""]
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            there = connection.scalars(text("SELECT DISTINCT collname FROM pg_collation WHERE collname = ANY(:wanted)"),
                {"wanted": ["C", "pg_c_utf8", "pg_unicode_fast", "C.utf8", "en_US.utf8", "tr_TR.utf8", "und-x-icu",
                            "tr-x-icu", "lt-x-icu"]})  # fmt: skip
            collations += [f'COLLATE "{name}"' for name in there]
        for collation in collations:
            assert connection.scalar(text(f"SELECT lower(:folded {collation}) = :folded"), {"folded": folded}), (
                collation
            )


def test_what_is_normalized_once_stays_so() -> None:
    for code in range(0x20, 0x3000):
        email = normalized(f"{chr(code)}@{chr(code)}b.example")
        assert normalized(email) == email == email.lower(), hex(code)
        assert unicodedata.is_normalized("NFC", email), hex(code)


def test_what_is_no_address_is_refused_in_a_line_and_found_by_nobody(
    commands: CommandRunner, people: People, rows: Rows
) -> None:
    before = rows.count("users")
    for email in NO_ADDRESSES[:4]:
        create_user = ("users", "create", email, "--name", "A", "--password-stdin")
        assert commands.refused(*create_user, answer=f"{PASSWORD}\n").startswith("Error: email: "), ascii(email)
        assert "No user" in commands.refused("users", "disable", email)
        assert "No user has" in commands.refused("users", "token", email)
        assert "No such patient" in commands.refused("consultations", "put", 78, "--patient", email)
        assert people.booking.put("/consultations/78", {"patient_email": email}).status_code == 422
        assert people.anonymous().post("/api/login", json={"email": email, "password": "no"}).status_code in (401, 422)
    assert rows.count("users") == before + 1  # the commands' own
    assert [email for email in NO_ADDRESSES if is_address(normalized(email))] == []


def test_two_users_of_one_address_log_in_by_their_own_spellings(app: Flask, people: People, engine: Engine) -> None:
    """As they did before spellings were compared; a user of the release before has no normalized address either."""
    raw = Raw(engine)
    with engine.connect() as connection:
        password_hash = connection.scalar(text("SELECT password_hash FROM users WHERE role = 'booking'"))
    ids = {
        raw.user(email=COMPOSED, normalized_email=normalized(COMPOSED), password_hash=password_hash): COMPOSED,
        raw.user(email=DECOMPOSED, password_hash=password_hash): DECOMPOSED,
        raw.user(email="added@b.example", password_hash=password_hash): "Added@b.example",
    }

    for user_id, spelling in ids.items():
        answer = client_of(app).post("/api/login", json={"email": spelling, "password": PASSWORD})
        me = client_of(app).get("/api/v1/me", headers={"Authorization": f"Bearer {answer.json['token']}"})
        assert me.json["data"]["id"] == user_id
    assert log_in(app, COMPOSED.upper()) == 200
    put = people.booking.put("/consultations/99", {"patient_email": DECOMPOSED})
    assert put.json["data"]["patient_id"] == list(ids)[1]


def test_an_address_is_looked_up_in_indexes(engine: Engine) -> None:
    query = "SELECT id FROM users WHERE normalized_email = 'a@b.example' OR email = 'a@b.example'"
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())
        else:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = str(connection.execute(text(f"EXPLAIN {query}")).all())

    assert "uq_users_normalized_email" in plan

"""Setting people and consultations up from the command line."""

import pytest

from tests.support.commands import CommandRunner
from tests.support.people import People
from tests.support.rows import Rows

PASSWORD = "a long enough password"


def create(commands: CommandRunner, email: str, *more: str, password: str = PASSWORD) -> str:
    return commands.ok("users", "create", email, "--name", "Joy", "--password-stdin", *more, answer=f"{password}\n")


def test_who_was_created_may_log_in(commands: CommandRunner, people: People) -> None:
    told = create(commands, "Nurse@Clinic.example", "--role", "admin")

    assert "nurse@clinic.example" in told
    answer = people.anonymous().post("/api/login", json={"email": "nurse@clinic.example", "password": PASSWORD})
    assert answer.status_code == 200
    me = people.anonymous().get("/api/v1/me", headers={"Authorization": f"Bearer {answer.json['token']}"})
    assert me.json["data"]["role"] == "admin"


def test_the_password_is_asked_for_twice_and_never_shown(commands: CommandRunner, rows: Rows) -> None:
    result = commands.run("users", "create", "a@b.example", "--name", "A", answer=f"{PASSWORD}\n{PASSWORD}\n")

    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert PASSWORD not in str(rows.one("SELECT * FROM users WHERE email = 'a@b.example'"))


def test_what_is_wrong_is_one_line(commands: CommandRunner, rows: Rows) -> None:
    before = rows.count("users")
    create_user = ("users", "create")
    options = ("--name", "A", "--password-stdin")

    refused = commands.refused(*create_user, "patient@example.com", *options, answer=f"{PASSWORD}\n")
    assert refused == "Error: A user with this e-mail address already exists; use another address."
    assert "at least 12" in commands.refused(*create_user, "a@b.example", *options, answer="short\n")
    for email in ("nobody", "@b.example", "a b@c.example", f"{'a' * 250}@b.example"):
        assert commands.refused(*create_user, email, *options, answer=f"{PASSWORD}\n").startswith("Error: email: ")
    assert "No user" in commands.refused("users", "disable", "nobody@example.com")
    assert "No user has" in commands.refused("users", "token", "nobody@example.com")
    assert "commands run as" in commands.refused("users", "disable", "commands@system.invalid")
    assert rows.count("users") == before


def test_a_name_is_what_can_be_stored_and_shown(commands: CommandRunner, rows: Rows) -> None:
    refused = [
        "", "   ", "J" * 201, "Joy\x1b[31m", "Joy\nAdmin", "Joy\x7f", "Joy\x9b31m", "Joy\u202enimda", "Joy\u2066",
        "Joy\u2028",
    ]  # fmt: skip
    taken = ["J", "\U0001f600" * 200, "\u0645\u06cc\u200c\u062e\u0648", "Siti Nur'aini", "\u200fJoy\u200e"]

    for number, name in enumerate([*refused, *taken]):
        create_user = ("users", "create", f"{number}@names.example", "--name", name, "--password-stdin")
        if name in taken:
            commands.ok(*create_user, answer=f"{PASSWORD}\n")
        else:
            told = commands.refused(*create_user, answer=f"{PASSWORD}\n")
            assert told == "Error: name: Must have 1 to 200 characters, and no control characters.", ascii(name)

    found = rows.all("SELECT name FROM users WHERE email LIKE '%@names.example' ORDER BY id")
    assert [row["name"] for row in found] == taken


@pytest.mark.parametrize("password", ["a long\tpassword", "a" * 1025], ids=["tab", "long"])
def test_a_password_that_no_login_takes_is_refused(password: str, commands: CommandRunner, rows: Rows) -> None:
    refusal = commands.run("users", "create", "joy@b.example", "--name", "Joy", answer=f"{password}\n{password}\n")

    assert refusal.exit_code == 2
    assert "Error: password: " in refusal.stderr
    assert rows.count("users", "email = 'joy@b.example'") == 0


def test_who_is_disabled_has_no_way_in_any_more(commands: CommandRunner, people: People) -> None:
    create(commands, "gone@clinic.example", "--role", "admin")
    token = commands.ok("users", "token", "gone@clinic.example").strip()
    bearer = {"Authorization": f"Bearer {token}"}
    assert people.anonymous().get("/api/v1/payments", headers=bearer).status_code == 200

    for _ in range(2):
        assert "is disabled" in commands.ok("users", "disable", "Gone@clinic.example")

    assert people.anonymous().get("/api/v1/payments", headers=bearer).status_code == 401
    login = {"email": "gone@clinic.example", "password": PASSWORD}
    assert people.anonymous().post("/api/login", json=login).status_code == 401
    assert "is disabled" in commands.refused("users", "token", "gone@clinic.example")


def test_a_consultation_is_put_by_its_patients_address(commands: CommandRunner, people: People) -> None:
    put = ("consultations", "put", 77, "--patient", "patient@example.com")
    (new,) = commands.json(*put, "--fee", "5000.50")
    (again,) = commands.json(*put, "--fee", "5000.50")

    assert (new["is_new"], again["is_new"]) == (True, False)
    assert people.patient.get("/consultations/77").json["data"]["fee"] == 5000.5
    assert people.patient.pay(77, amount=5000.5).status_code == 201
    assert "has payments" in commands.refused(*put, "--fee", "6000")
    assert "No such patient" in commands.refused("consultations", "put", 78, "--patient", "nobody@example.com")
    for fee in ("1", "1e4", "-5", "5000.505"):
        assert "fee" in commands.refused("consultations", "put", 78, "--patient", "patient@example.com", "--fee", fee)

"""Users are listed, let in again, and given another password or address; each of these ends what was open."""

from tests.support.commands import CommandRunner
from tests.support.people import People

PASSWORD = "a long enough password"


def test_users_are_listed_and_shown(commands: CommandRunner, people: People) -> None:
    listed = commands.json("users", "list")
    assert [row["id"] for row in listed] == sorted((row["id"] for row in listed), reverse=True)
    assert {row["email"] for row in commands.json("users", "list", "--role", "patient")} == {
        "patient@example.com",
        "other@example.com",
    }
    assert commands.json("users", "list", "--limit", 1) == listed[:1]
    by_id = commands.json("users", "show", people.patient.id)
    assert by_id == commands.json("users", "show", "Patient@Example.com")
    assert (by_id[0]["id"], by_id[0]["state"], by_id[0]["role"]) == (people.patient.id, "enabled", "patient")


def test_who_is_enabled_logs_in_anew(commands: CommandRunner, people: People) -> None:
    commands.ok("users", "set-password", people.patient.id, "--password-stdin", answer=f"{PASSWORD}\n")
    commands.ok("users", "disable", "patient@example.com")
    assert _login(people, "patient@example.com", PASSWORD) == 401

    assert commands.json("users", "enable", "patient@example.com")[0]["state"] == "enabled"

    assert _login(people, "patient@example.com", PASSWORD) == 200
    assert people.patient.pay().status_code == 401  # the token from before


def test_a_new_password_or_address_ends_all_logins(commands: CommandRunner, people: People) -> None:
    told = commands.ok("users", "set-password", "admin@example.com", "--password-stdin", answer=f"{PASSWORD}\n")
    assert PASSWORD not in told
    assert people.admin.get("/payments").status_code == 401
    assert _login(people, "admin@example.com", PASSWORD) == 200

    (moved,) = commands.json("users", "set-email", people.patient.id, "Maria@Clinic.example")
    assert moved["email"] == "maria@clinic.example"
    assert people.patient.pay().status_code == 401
    assert _login(people, "patient@example.com", PASSWORD) == 401
    commands.ok("users", "set-password", "maria@clinic.example", "--password-stdin", answer=f"{PASSWORD}\n")
    assert _login(people, "MARIA@clinic.example", PASSWORD) == 200


def test_what_is_wrong_is_one_line(commands: CommandRunner, people: People) -> None:
    commands.ok("payments", "list")  # adds the user of the commands
    for command in (["enable"], ["show"], ["set-password", "--password-stdin"], ["set-email"]):
        more = ["new@clinic.example"] if command == ["set-email"] else []
        for nobody in ("nobody@example.com", 999_999, 10**30):
            assert "No user" in commands.refused("users", *command, nobody, *more, answer=f"{PASSWORD}\n")
        if command != ["show"]:
            refused = commands.refused("users", *command, "commands@system.invalid", *more, answer=f"{PASSWORD}\n")
            assert "commands run as" in refused
    taken = commands.refused("users", "set-email", people.patient.id, "Other@example.com")
    assert taken == "Error: A user with this e-mail address already exists; use another address."
    assert "email: Not a valid" in commands.refused("users", "set-email", people.patient.id, "nobody")
    short = commands.refused("users", "set-password", people.patient.id, "--password-stdin", answer="short\n")
    assert "at least 12" in short
    assert people.patient.pay().status_code == 201  # nothing of this has ended a login


def _login(people: People, email: str, password: str) -> int:
    return people.anonymous().post("/api/login", json={"email": email, "password": password}).status_code

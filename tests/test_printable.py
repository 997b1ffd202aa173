"""What is stored may be strange; what commands print never is."""

import ast
import json
from collections.abc import Iterator
from typing import Any

import pytest

from payments_app.commands import say_json
from payments_app.printable import printable
from tests.support.commands import CommandRunner, commands_on
from tests.support.databases import ROOT, Database
from tests.support.people import People
from tests.support.redis_server import RedisServer
from tests.support.rows import Rows

# Clears the screen, colours (C1), turns the direction, hides, ends the line in four ways, and poses as another line.
HOSTILE = (
    "x\x1b[2J\x9b31m\x07\x08\x7f\u202e\u2066\u2069\u200b\u200d\u2060\ufeff\xad\u061c\u3164\ufe0f\x85\u2028\u2029\r\n"
    "M1  payment 9  all is well"
)
NAMES = ("I Gusti Ngurah Rai", "Ma. Niño Dela Peña-Muñoz, Jr.", "Đặng Thị Ánh", "李 小龍", "محمد", "ꦗꦮ", "O\u2019Neil")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b", r"\x9b"),
        ("a\r\n\tb\x00", r"a\r\n\tb\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("pay\u200bment", r"pay\u200bment"),
        ("\udc9f", r"\udc9f"),
        ("1\xa0000", r"1\xa0000"),
        ("\u3164\u2800\u034f\ufe0f\U000e0101", r"\u3164\u2800\u034f\ufe0f\U000e0101"),
        ("\ue000\U000e0041", r"\ue000\U000e0041"),
        (r"\x1b", r"\x1b"),
    ],
)
def test_what_is_not_drawn_as_itself_is_spelt_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_as_they_are(name: str) -> None:
    assert printable(name) == name


@pytest.fixture
def strange(people: People, rows: Rows) -> int:
    """A payment with everything about it that is text, and that somebody else may choose, as strange as can be."""
    payment_id: int = people.patient.pay(1).json["data"]["payment_id"]
    people.patient.confirm(payment_id, "TXN-7")
    people.admin.post(f"/payments/{payment_id}/refund", {"amount": 1000})
    values = {"strange": HOSTILE, "id": payment_id}
    rows.execute("UPDATE payments SET transaction_id = :strange WHERE id = :id", **values)
    rows.execute("UPDATE payment_events SET actor = substr(:strange, 1, 64) WHERE payment_id = :id", **values)
    rows.execute(
        "UPDATE refunds SET reason = :strange, decline_reason = :strange, reference = :strange WHERE payment_id = :id",
        **values,
    )
    rows.execute("UPDATE users SET name = :strange WHERE role = 'patient'", **values)
    rows.execute("UPDATE invoices SET status = 'void', invoice_number = substr(:strange, 1, 30)", **values)
    return payment_id


@pytest.fixture
def commands(database: Database, redis_server: RedisServer) -> Iterator[CommandRunner]:
    with commands_on(database.url, REDIS_URL=redis_server.url) as commands:
        yield commands


def asked(payment_id: int, refund_id: int) -> Iterator[tuple[tuple[object, ...], bool]]:
    """The commands that show it; whether they do so as JSON too."""
    yield ("payments", "list"), True
    yield ("payments", "show", payment_id), True
    yield ("payments", "audit"), True
    yield ("refunds", "list"), True
    yield ("refunds", "show", refund_id), True
    yield ("refunds", "create", payment_id), False
    yield ("locks", "list"), True
    yield ("users", "disable", HOSTILE), False
    yield ("users", "token", HOSTILE), False
    yield ("refunds", "create", payment_id, "--reason", HOSTILE), False
    yield ("refunds", "create", payment_id, "--idempotency-key", HOSTILE), False
    yield ("consultations", "put", payment_id, "--patient", HOSTILE, "--fee", HOSTILE), False


def test_no_command_prints_what_is_strange(
    commands: CommandRunner, strange: int, rows: Rows, redis_server: RedisServer
) -> None:
    refund_id = rows.one("SELECT id FROM refunds")["id"]
    redis_server.client.set(f"payment:lock:{HOSTILE}", HOSTILE, ex=600)
    told = ""
    try:
        for command, has_json in asked(strange, refund_id):
            result = commands.run(*command, answer="n\n")
            assert result.exception is None or isinstance(result.exception, SystemExit), command
            assert result.output.replace("\n", "").isprintable(), (command, result.output)
            assert "\u3164" not in result.output
            assert not [line for line in result.output.splitlines() if line.startswith("M1  payment 9")]
            told += result.output
            if has_json:
                for line in commands.run(*command, "--json").stdout.splitlines():
                    assert line.isascii()
                    assert line.isprintable()
                    told += f"{json.loads(line)}"
    finally:
        redis_server.client.flushall()

    assert told.count(r"x\x1b[2J\x9b31m") > 20
    (shown,) = commands.json("payments", "show", strange)
    assert shown["transaction"] == HOSTILE


def test_half_of_a_pair_does_not_spoil_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"a": "x\udc9f\U0001f600\ud83d", "b": "\\ud83d\\"})

    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told == {"a": "x\ufffd\U0001f600\ufffd", "b": "\\ud83d\\"}


def test_who_runs_a_command_cannot_sign_with_what_is_strange(
    commands: CommandRunner, people: People, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "maria\x1b[2J\udcff")
    payment_id = people.patient.pay(1).json["data"]["payment_id"]
    people.patient.confirm(payment_id)

    commands.ok("refunds", "create", payment_id, "--yes")

    actors = {row["actor"] for row in rows.all("SELECT actor FROM payment_events")}
    assert r"command:maria\x1b[2J\udcff" in actors


@pytest.mark.usefixtures("people")
def test_a_terminal_with_fewer_letters_is_shown_the_others_spelt_out(commands: CommandRunner) -> None:
    runner = commands.app.test_cli_runner(charset="ascii")
    create = ["users", "create", "n@clinic.example", "--name", "Niño", "--password-stdin"]

    result = runner.invoke(args=create, input="a long enough password\n")

    assert result.exit_code == 0
    assert r"Ni\xf1o" in result.stdout


def test_everything_that_commands_print_goes_one_way() -> None:
    around = []
    for file in (ROOT / "payments_app").rglob("*.py"):
        if file.name == "commands.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "click.echo", "click.secho", "click.confirm", "sys.stdout.write"):
                around.append(f"{file.name}:{node.lineno} {called}")  # type: ignore[attr-defined]  # a call has one

    assert around == []

"""The commands of docs/integrate.md, pasted into a shell beside a real service, in order."""

import json
import os
import re
import subprocess
from typing import Any

from flask import Flask

from tests.support.databases import ROOT, Database
from tests.support.dialects import on_sqlite
from tests.support.rows import Rows
from tests.support.service import Service

PAGE = (ROOT / "docs" / "integrate.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)

# Between the outputs of two blocks.
MARK = "---next-block---"

SETTINGS = {"RETURN_URL_ORIGINS": "http://127.0.0.1:8080", "WEBHOOK_ALLOW_PRIVATE": "1"}


def pasted(api: str, database_url: str) -> list[str]:
    """What each block prints."""
    text = f"\necho {MARK}\n".join(BLOCKS).replace("http://127.0.0.1:8000", api)
    run = subprocess.run(
        ["bash", "-u"],
        input=text,
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": database_url, **SETTINGS},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return run.stdout.split(f"{MARK}\n")


def bodies(output: str) -> list[dict[str, Any]]:
    """The JSON documents in an output, one after the other without anything between them."""
    decoder, found, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        body, end = decoder.raw_decode(rest)
        found.append(body)
        rest = rest[end:].strip()
    return found


@on_sqlite
def test_every_block_does_what_the_page_says(database: Database, app: Flask, rows: Rows) -> None:  # noqa: ARG001  # an empty database
    with Service.started(database.url, 1, **SETTINGS) as service:
        key, endpoint, registered, link, paid, looked, refunded, feed = pasted(service.url, database.url)

    assert bodies(key[key.index("{") :])[0]["data"]["email"] == "site@clinic.example"
    assert (endpoint, link, paid) == ("", "", "")
    assert bodies(registered)[0]["message"] == "Consultation registered"
    by_payment, by_reference = bodies(looked)
    assert [payment["status"] for payment in by_payment["data"]] == ["completed"]
    assert by_reference["data"][0]["active_payment"]["status"] == "completed"
    closed, first, second = bodies(refunded)
    assert closed["data"]["status"] == "closed"
    assert first == second
    assert first["data"]["payment"]["status"] == "refunded"
    assert bodies(feed)[0]["data"] == []
    assert rows.counts("webhook_endpoints", "refunds") == {"webhook_endpoints": 1, "refunds": 1}


def test_lines_are_short_enough_for_any_window() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 120] == []

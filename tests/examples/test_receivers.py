"""Receivers of webhooks that the documents show take what the service has signed, and nothing else."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from standardwebhooks import Webhook

from payments_app.events.schemas import Event as FeedEventSchema
from tests.support.booking_site import FOLDER, SECRET, load_site, served, signed
from tests.support.databases import ROOT
from tests.support.waiting import PATIENCE_SECONDS

PAGE = (ROOT / "docs" / "integrate.md").read_text()

EVENT: dict[str, Any] = {
    "id": 412,
    "type": "payment.completed",
    "position": 97,
    "created_at": "2026-11-29T09:30:00.000000Z",
    "data": {"payment_id": 41, "consultation_id": 5, "consultation_reference": "BK-5 ₱", "status": "completed"},
}

Start = Callable[[pytest.MonkeyPatch, Path], Any]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(found)


@contextmanager
def in_node(_monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js: install Debian's nodejs")
    log = (folder / "log").open("wb")
    with (
        log,
        subprocess.Popen(
            [node, "receiver.mjs"],
            cwd=FOLDER,
            env={**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def of_the_page(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> Iterator[str]:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(block("python"), "integrate.md", "exec"), names)  # noqa: S102  # our own page
    app: Flask = names["app"]
    with served(app) as url:
        yield url


@contextmanager
def of_the_site(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    with served(load_site(monkeypatch, folder, "http://127.0.0.1:9", "cpk_none").app) as url:
        yield url


@pytest.fixture(params=[in_node, of_the_page, of_the_site], ids=["node", "python", "site"])
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    start: Start = request.param
    with start(monkeypatch, tmp_path) as url:
        yield url


def send(url: str, body: bytes, headers: dict[str, str]) -> int:
    return requests.post(f"{url}/webhooks", data=body, headers=headers, timeout=PATIENCE_SECONDS).status_code


def test_a_receiver_takes_what_was_signed_and_nothing_else(receiver: str) -> None:
    body, headers = signed(EVENT)
    good, foreign = headers["webhook-signature"], "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="

    taken = {
        "as it is": send(receiver, body, headers),
        "again": send(receiver, body, headers),
        "two secrets": send(receiver, body, {**headers, "webhook-signature": f"{foreign} {good}"}),
        "a ping": send(receiver, *signed({"type": "ping", "data": {}}, webhook_id="ping_1")),
    }
    refused = {
        "another body": send(receiver, body.replace(b"412", b"413"), headers),
        "another id": send(receiver, body, {**headers, "webhook-id": "evt_2"}),
        "another time": send(
            receiver, body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}
        ),
        "old": send(receiver, *signed(EVENT, ago_seconds=301)),
        "of the future": send(receiver, *signed(EVENT, ago_seconds=-310)),
        "of another secret": send(receiver, body, {**headers, "webhook-signature": foreign}),
        "another version": send(receiver, body, {**headers, "webhook-signature": good.replace("v1", "v2")}),
        "no signature": send(receiver, body, {**headers, "webhook-signature": "nonsense"}),
        "no time": send(receiver, body, {**headers, "webhook-timestamp": "soon"}),
        "no headers": send(receiver, body, {}),
    }

    assert taken == dict.fromkeys(taken, 204)
    assert refused == dict.fromkeys(refused, 400)


def test_a_repetition_is_heard_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with of_the_page(monkeypatch, tmp_path) as url:
        assert [send(url, *signed(EVENT)) for _ in range(2)] == [204, 204]

    assert capsys.readouterr().out.count("payment.completed") == 1


def test_the_webhook_that_the_page_shows_is_signed_with_the_secret_that_it_names() -> None:
    head, _, lines = block("http").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    body = lines.replace("\n", "")
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)

    assert SECRET in PAGE
    assert headers["webhook-signature"] == Webhook(SECRET).sign(headers["webhook-id"], at, body)
    assert headers["Content-Length"] == str(len(body))
    assert FeedEventSchema().validate(json.loads(body)) == {}


def test_the_page_shows_how_the_receiver_in_node_checks() -> None:
    """Its imports stand in other lines of the file, and need not be compared."""
    _, _, shown = block("js").partition("\nconst SECRET")
    assert "timingSafeEqual" in shown
    program = (FOLDER / "receiver.mjs").read_text()
    function = "function isSigned" + shown.partition("function isSigned")[2].rstrip("\n")
    assert function in program


def test_the_booking_site_fits_into_150_lines() -> None:
    assert len((FOLDER / "app.py").read_text().splitlines()) < 150

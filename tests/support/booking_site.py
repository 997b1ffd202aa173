"""The example of a booking site, in the test's own process."""

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from standardwebhooks import Webhook
from werkzeug.serving import make_server

from tests.support.client import ApiClient, client_of
from tests.support.databases import ROOT

FOLDER = ROOT / "examples" / "booking-site"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# Until the server notices that it is to end.
SHUTDOWN_SECONDS = 0.02


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """Serve an app over HTTP by threads of this process; yields its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, args=(SHUTDOWN_SECONDS,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def load_site(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, key: str) -> ModuleType:
    """The site's module, for a service at that address."""
    settings = {"PAYMENTS_URL": url, "PAYMENTS_KEY": key, "WEBHOOK_SECRET": SECRET, "SITE_URL": "http://127.0.0.1:9"}
    for name, value in {**settings, "BOOKINGS": str(folder / "bookings.db")}.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("booking_site", FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "booking_site", module)  # where Flask looks for its folder
    spec.loader.exec_module(module)
    return module


def client_of_site(site: ModuleType) -> ApiClient:
    return client_of(site.app)


def signed(
    body: dict[str, Any] | str, *, webhook_id: str = "evt_1", ago_seconds: float = 0
) -> tuple[bytes, dict[str, str]]:
    """A webhook as the sender makes it: its body and its headers."""
    text = body if isinstance(body, str) else json.dumps(body)
    at = int(time.time() - ago_seconds)
    signature = Webhook(SECRET).sign(webhook_id, datetime.fromtimestamp(at, UTC), text)
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    return text.encode(), {"Content-Type": "application/json", **headers}

"""Chromium, driven by Playwright: what a person sees, and what the page did behind their back."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.databases import ROOT

# What `make run` runs on: what differs between databases is tested without a browser. For ``pytestmark``.
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")

SCREENSHOTS = Path(os.environ.get("SCREENSHOTS") or ROOT / "instance" / "screenshots")

# The first that is there: without windows, extensions and the rest of a browser, the same engine takes half the time.
EXECUTABLES = ("chromium-headless-shell", "chromium")

# Milliseconds that anything may take to appear: far more than it takes, so that only something broken runs into it.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium_started() -> Iterator[Browser]:
    """The Chromium that CHROMIUM names, or else the first in PATH; the tests are skipped where there is none."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip("no Chromium: install Debian's chromium-headless-shell, or name another one in CHROMIUM")
    # No other host can be found: a page that needs one shows it.
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.getuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to start as root with it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()


@contextmanager
def visitor(chromium: Browser, url: str, **more: Any) -> Iterator[Page]:
    """The first tab of somebody with a profile of their own; ``page.context.new_page()`` is their next one.

    ``more`` is what ``Browser.new_context`` takes: ``locale``, ``color_scheme``, ``viewport``. In the end no tab may
    have complained on the console, broken its Content-Security-Policy or asked any other host than ``url``'s.
    """
    context = chromium.new_context(base_url=url, **more)
    context.set_default_timeout(PATIENCE_MS)
    faults = _watched(context, url)
    yield context.new_page()
    context.close()
    assert not faults, "\n".join(faults)


def _watched(context: BrowserContext, url: str) -> list[str]:
    """What goes wrong in any tab, as it goes wrong."""
    faults: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # Chromium calls every 409 an error. What the API answers, or fails to, is for the page to tell of.
        is_answer = message.text.startswith("Failed to load resource") and "/api/" in message.location["url"]
        if message.type in ("error", "warning") and not is_answer:
            faults.append(f"{message.type}: {message.text}")

    context.on("console", hear)
    context.on("weberror", lambda error: faults.append(f"uncaught: {error.error}"))
    context.on(
        "request",
        lambda request: (
            None if request.url.startswith((url, "data:", "blob:")) else faults.append(f"asked {request.url}")
        ),
    )
    return faults


def save_screenshot(page: Page, name: str) -> None:
    """The whole page as a picture, into the folder that SCREENSHOTS names, or else ``instance/screenshots``."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

"""Debian's Chromium, driven by Playwright, with checks of the console, the policy and the hosts that were asked."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

# Pictures for people, which no test reads: they are only taken if this folder is named.
SCREENSHOTS = os.environ.get("SCREENSHOTS")

# The first of them that is installed: without windows and extensions, the same engine takes half the time.
EXECUTABLES = ("chromium-headless-shell", "chromium")

# Milliseconds that an element may take to appear: far more than it needs, so that only a fault reaches the limit.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium_started() -> Iterator[Browser]:
    """The Chromium that CHROMIUM names, or else the first in PATH; the tests are skipped if there is none."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip("no Chromium: install Debian's chromium-headless-shell, or name another one in CHROMIUM")
    # Chromium resolves no other host, so that a page which needs one fails.
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # No page lives long enough to gain from compiling its scripts well, or from a process that draws: a tenth of all.
    options += ["--js-flags=--no-opt,--single-threaded", "--in-process-gpu"]
    if os.getuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to start as root with it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()


@contextmanager
def visitor(chromium: Browser, url: str, *, beside: str | None = None, **more: Any) -> Iterator[Page]:
    """The first tab of a new browser profile; ``page.context.new_page()`` opens the next one.

    ``more`` goes to ``Browser.new_context``: ``locale``, ``color_scheme``, ``viewport``. At the end this fails if a tab
    wrote errors or warnings to the console, broke its Content-Security-Policy, or sent a request to a host other than
    ``url``'s. ``beside`` is a gateway with pages of its own: it may be asked, but must not get the address of our page.
    """
    context = chromium.new_context(base_url=url, **more)
    context.set_default_timeout(PATIENCE_MS)
    faults = _watched(context, url, beside)
    yield context.new_page()
    context.close()
    assert not faults, "\n".join(faults)


def _watched(context: BrowserContext, url: str, beside: str | None) -> list[str]:
    """A list to which faults of any tab are added as they happen."""
    faults: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # Chromium calls every 409 an error. Showing errors of the API is the page's task.
        where = message.location["url"]
        is_answer = message.text.startswith("Failed to load resource") and "/api/" in where
        is_elsewhere = beside is not None and where.startswith(beside)
        if message.type in ("error", "warning") and not is_answer and not is_elsewhere:
            faults.append(f"{message.type}: {message.text}")

    context.on("console", hear)
    context.on("weberror", lambda error: faults.append(f"uncaught: {error.error}"))

    def see(request: Request) -> None:
        if beside is not None and request.url.startswith(beside):
            if request.headers.get("referer", beside).startswith(url):
                faults.append(f"{request.url} was sent the address {request.headers['referer']}")
        elif not request.url.startswith((url, "data:", "blob:")):
            faults.append(f"asked {request.url}")

    context.on("request", see)
    return faults


def save_screenshot(page: Page, name: str) -> None:
    """The whole page as a picture, into the folder that SCREENSHOTS names, if it does."""
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def assert_accessible(page: Page, state: str) -> None:
    """axe-core finds nothing, in the light and in the dark, and nothing sticks out to the side.

    ``state`` names the pictures.
    """
    if page.evaluate("typeof axe") == "undefined":  # the page was loaded since
        page.evaluate(AXE_SCRIPT)
    # Only colors differ in the dark: style sheets ask for it, no script does.
    _assert_no_violations(page, state, "dark", runOnly=["color-contrast", "link-in-text-block"])
    _assert_no_violations(page, state, "light")
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1], f"{state} is {widths[0]} px wide"


def _assert_no_violations(page: Page, state: str, scheme: Literal["light", "dark"], **options: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    save_screenshot(page, f"{scheme}-{state}")
    run = "(options) => axe.run(options).then(({ violations }) => violations)"
    violations = page.evaluate(run, {"resultTypes": ["violations"], **options})
    assert not violations, f"{state}, {scheme}: {AxeResults({'violations': violations}).generate_report()}"

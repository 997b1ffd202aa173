"""Waits for other processes and threads, with a limit."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import requests

# Seconds; far more than a start or a request takes, so that only a fault reaches the limit.
PATIENCE_SECONDS = 60

# Short beside a start or a response, and long enough to leave the processor to them.
LOOK_AGAIN_SECONDS = 0.02


def wait_until(
    condition: Callable[[], bool], describe: Callable[[], str] = lambda: "it did not happen in time"
) -> None:
    """Wait for a condition; ``describe`` gives the message of the TimeoutError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(describe())
        time.sleep(LOOK_AGAIN_SECONDS)


def wait_until_answered(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a started server answers, with any status."""

    def is_answered() -> bool:
        try:
            requests.get(url, allow_redirects=False, timeout=PATIENCE_SECONDS)
        except requests.ConnectionError:
            if process.poll() is not None:
                raise RuntimeError(f"it has ended:\n{log.read_text()}") from None
            return False
        return True

    wait_until(is_answered, log.read_text)

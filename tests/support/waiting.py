"""Waiting for what other processes and threads do, and not for longer than they could take."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import requests

# Seconds; far more than a start or a request takes, so that only something broken runs into it.
PATIENCE_SECONDS = 60

# Short beside any start or answer that is waited for, and long enough to leave the processor to it.
LOOK_AGAIN_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], why_not: Callable[[], str] = lambda: "it did not happen in time") -> None:
    """Wait for a condition; ``mismatch_reason`` says what was in its way, where it is not met."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(why_not())
        time.sleep(LOOK_AGAIN_SECONDS)


def wait_until_answered(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that was started answers, whatever it says."""

    def is_answered() -> bool:
        try:
            requests.get(url, allow_redirects=False, timeout=PATIENCE_SECONDS)
        except requests.ConnectionError:
            if process.poll() is not None:
                raise RuntimeError(f"it has ended:\n{log.read_text()}") from None
            return False
        return True

    wait_until(is_answered, log.read_text)

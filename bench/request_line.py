"""Measures the processor time for counting and logging one request: ``python -m bench.request_line``.

As in a gunicorn worker in production: JSON lines, written by a thread of their own, and metrics in shared memory.
"""

import logging
import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from flask import Response

from config import Settings
from payments_app import create_app
from payments_app.observability import request_log, shared_values
from payments_app.observability.background_output import BackgroundOutput
from payments_app.observability.logging import formatter

CALLS = 20_000
ROUNDS = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        measure(f"sqlite:///{folder}/empty.db", BackgroundOutput(nowhere.fileno()))


def measure(database_url: str, output: BackgroundOutput) -> None:
    app = create_app(Settings.from_environment({"DATABASE_URL": database_url}))
    shared_values.share(workers=1)
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter(as_json=True))
    logging.getLogger().handlers[:] = [handler]
    with app.test_request_context("/api/v1/payments", method="POST"):
        app.preprocess_request()
        response = Response(status=201)
        both = microseconds(lambda: request_log._log_request(response))  # noqa: SLF001  # it is what is measured
        logging.getLogger("payments_app").setLevel(logging.WARNING)
        counts = microseconds(lambda: request_log._log_request(response))  # noqa: SLF001
    sys.stdout.write(f"counting {counts:.0f} us, logging {both - counts:.0f} us, together {both:.0f} us a request\n")


def microseconds(call: Callable[[], object]) -> float:
    """The best of some rounds, in microseconds a call."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS, timer=time.process_time)) / CALLS * 1e6


if __name__ == "__main__":
    main()

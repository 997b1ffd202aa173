"""A separate clock for a service, which a test can set forward and back while the service runs."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS


class Clock:
    """Sets the time for processes that are started with its ``environment``, through Debian's libfaketime."""

    def __init__(self, file: Path) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not libraries:
            pytest.skip("no clock that may be changed: apt-get install faketime")
        self._file = file
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds after which a jump is seen; 0 costs more than all the rest
            "NO_FAKE_STAT": "1",  # files keep their times
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # the monotonic clock stays as it is
            "PYTHONPATH": str(Path(__file__).with_name("sleeping")),
        }

    def set(self, hours: int) -> None:
        """Set the clock so many hours ahead of the real time (below 0: behind); processes see it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+d}h\n")
        new.replace(self._file)  # atomic: no process reads half of it


def hours_ahead(service: Service) -> int:
    """How many hours a service's clock is ahead of the real time, rounded."""
    said = parsedate_to_datetime(requests.get(f"{service.url}/healthz", timeout=PATIENCE_SECONDS).headers["Date"])
    return round((said - datetime.now(UTC)).total_seconds() / 3600)

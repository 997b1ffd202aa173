"""A clock of a service's own, which a test may put forward and back while the service runs."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from tests.support.service import Service
from tests.support.waiting import PATIENCE_SECONDS


class Clock:
    """What time it is for the processes that are started in its ``environment``: Debian's libfaketime tells them."""

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
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # the clock that only runs forward does so here, too
            "PYTHONPATH": str(Path(__file__).with_name("sleeping")),
        }

    def set(self, hours: int) -> None:
        """So many hours ahead of what it really is, or behind, to be seen within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+d}h\n")
        new.replace(self._file)  # at once: nobody reads half of it


def hours_ahead(service: Service) -> int:
    """What a service thinks that it is ahead of the time here, to the hour."""
    said = parsedate_to_datetime(requests.get(f"{service.url}/healthz", timeout=PATIENCE_SECONDS).headers["Date"])
    return round((said - datetime.now(UTC)).total_seconds() / 3600)

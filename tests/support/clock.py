"""A clock of a service's own, which a test may put forward and back while the service runs."""

from pathlib import Path

import pytest


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
            "FAKETIME_NO_CACHE": "1",  # a jump is seen by the next one who asks
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # the clock that only runs forward does so here, too
            "PYTHONPATH": str(Path(__file__).with_name("sleeping")),
        }

    def set(self, hours: int) -> None:
        """So many hours ahead of what it really is, or behind."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+d}h\n")
        new.replace(self._file)  # at once: nobody reads half of it

"""Collects log lines, in the formats in which they are written."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from payments_app.observability.logging import formatter


class LogLines:
    """The lines so far, as JSON and in the format for people."""

    def __init__(self) -> None:
        self._as_json, self._to_read = io.StringIO(), io.StringIO()
        self.handlers = [logging.StreamHandler(self._as_json), logging.StreamHandler(self._to_read)]
        self.handlers[0].setFormatter(formatter(as_json=True))
        self.handlers[1].setFormatter(formatter(as_json=False))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._as_json.getvalue().splitlines()]

    @property
    def to_read(self) -> str:
        return self._to_read.getvalue()

    @property
    def text(self) -> str:
        """All lines without JSON's escapes, to search for text that must not be logged."""
        return "\n".join([self.to_read, *(repr(event) for event in self.events)])

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these kinds (``Payment``, ``Refund``), without the members that every line has."""
        common = ("timestamp", "level", "logger", "request_id")
        return [
            {name: value for name, value in event.items() if name not in common}
            for event in self.events
            if event["event"].partition(":")[0] in kinds
        ]

    def names(self, *kinds: str) -> list[str]:
        return [event["event"] for event in self.of(*kinds)]


@contextmanager
def listening(*names: str) -> Iterator[LogLines]:
    """Set these loggers to DEBUG and collect their lines; without names, all loggers, those of libraries too."""
    lines, root = LogLines(), logging.getLogger()
    everybody = [root.name, *(name for name, it in root.manager.loggerDict.items() if isinstance(it, logging.Logger))]
    before = [(logger, logger.level) for logger in map(logging.getLogger, names or everybody)]
    for logger, _ in before:
        logger.setLevel(logging.DEBUG)
    for handler in lines.handlers:
        root.addHandler(handler)
    try:
        yield lines
    finally:
        for handler in lines.handlers:
            root.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)

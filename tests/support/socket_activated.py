"""gunicorn as systemd runs it: on a socket that exists before gunicorn starts and after it stops."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.databases import ROOT
from tests.support.service import workers_of
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# As systemd does between fork and exec: the socket becomes descriptor 3, and LISTEN_PID is this process's id.
_HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
logged = ["--access-logfile", "-", "--access-logformat", "served by %(p)s"]
# Not "-m gunicorn": a new master (USR2) would then find gunicorn's own modules before those of the standard library.
program = os.path.join(os.path.dirname(sys.executable), "gunicorn")
os.execv(sys.executable, [sys.executable, program, *logged, *sys.argv[2:]])
"""


class SocketActivated:
    """A gunicorn on a Unix socket; ``restart`` and ``reload`` do what those of ``systemctl`` do."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.path = folder / "gunicorn.sock"
        self.log = folder / "gunicorn.log"
        self.environment = environment
        self._options = options
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self.path.chmod(0o666)  # nginx may be another user
        self._socket.listen(2048)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until each of its workers has answered."""
        descriptor = self._socket.fileno()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _HAND_OVER, str(descriptor), *self._options],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                pass_fds=[descriptor],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: self._have_answered(int(self.environment["WEB_CONCURRENCY"])), self._logged)

    def stop(self) -> None:
        """As ``systemctl stop``: running requests are finished, new ones wait at the socket."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """Send HUP, and wait until all workers are new ones and each has answered a request."""
        assert self._process is not None
        before = self.workers()
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: not self.workers() & before and self._have_answered(len(before)), self._logged)

    def kill(self) -> None:
        """As ``kill -9`` of the master alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def kill_workers(self) -> None:
        """As ``kill -9``; others take their place."""
        for worker in self.workers():
            os.kill(worker, signal.SIGKILL)

    def workers(self) -> set[int]:
        return workers_of(self.pid)

    @property
    def pid(self) -> int:
        """The master's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def get(self, path: str) -> str:
        """Its response to a GET without a proxy."""
        return self._ask(f"GET {path} HTTP/1.1", b"")

    def post(self, path: str, body: bytes) -> str:
        """Its response to a POST of JSON without a proxy."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        return self._ask(f"POST {path} HTTP/1.1\r\n{length}", body)

    def _ask(self, head: str, body: bytes) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(str(self.path))
            connection.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + body)
            return connection.makefile(encoding="latin-1").read()

    def close(self) -> None:
        """No request is running, so its workers can be killed."""
        assert self._process is not None
        self._process.terminate()
        self.kill_workers()
        self._process.wait(PATIENCE_SECONDS)
        self._socket.close()

    def _have_answered(self, count: int) -> bool:
        # A started worker may have no signal handlers yet, and would miss the signal to stop.
        workers = self.workers()
        self.get("/metrics")
        served = {int(line.split()[-1].strip("<>")) for line in self._logged().splitlines() if "served by" in line}
        return len(workers) == count and workers <= served

    def _logged(self) -> str:
        return self.log.read_text()

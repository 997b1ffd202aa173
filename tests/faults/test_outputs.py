"""The service goes on while it cannot write what nobody is charged for: its metrics and its log."""

import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import requests

from tests.support.databases import ROOT, Database
from tests.support.service import free_port
from tests.support.small_disk import small_disk
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import PATIENCE_SECONDS, wait_until, wait_until_answered

# Of several routes: each has a dozen numbers of its own, which need room when it is first asked for.
PAGES = {
    "/healthz": "200",
    "/api/v1/me": "401",
    "/api/v1/payments": "401",
    "/api/v1/payments/1": "401",
    "/api/v1/payments/1/events": "401",
    "/api/v1/consultations/1": "401",
    "/api/v1/disputes": "401",
    "/problems/forbidden": "200",
    "/nothing": "404",
    "/metrics": "200",
}


def ask(service: SocketActivated) -> None:
    """Each page, as often as it takes both workers to serve one."""
    for page, status in list(PAGES.items()) * 3:
        assert service.get(page).startswith(f"HTTP/1.1 {status} "), page


def test_metrics_need_no_disk(databases: Callable[[str], Database], tmp_path: Path) -> None:
    with small_disk() as disk:
        temporary = disk.folder / "tmp"
        temporary.mkdir()
        environment = {"APP_ENV": "testing", "DATABASE_URL": databases("sqlite").url, "TMPDIR": str(temporary)}
        service = SocketActivated(tmp_path, WEB_CONCURRENCY="2", **environment)
        service.start()
        try:
            workers = service.workers()
            with disk.full():
                ask(service)
            shutil.rmtree(temporary)  # as a cleaner does
            ask(service)
            assert service.workers() == workers

            os.kill(min(workers), signal.SIGKILL)
            wait_until(lambda: len(service.workers() - {min(workers)}) == 2)
            ask(service)

            health = r'payments_http_requests_total\{method="GET",route="/healthz",status="200"\} (\S+)'
            assert re.findall(health, service.get("/metrics")) == ["9.0"]
            assert "\npayments_metrics_lost_total 0.0\n" in service.get("/metrics")
        finally:
            service.close()


class Unread:
    """A gunicorn with one worker whose output goes into a pipe of 4 KiB, the smallest that there is."""

    def __init__(self, database_url: str) -> None:
        self._reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        settings = {"APP_ENV": "testing", "DATABASE_URL": database_url, "PORT": str(port), "WEB_CONCURRENCY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"], cwd=ROOT, env={**os.environ, **settings}, stdout=writer, stderr=writer
        )
        os.close(writer)
        wait_until_answered(f"{self._url}/healthz", self.process, Path(os.devnull))

    def ask(self, name: str, count: int) -> list[str]:
        """Send so many requests, one after the other; returns their ids."""
        ids = [f"{name}.{number}" for number in range(count)]
        for number, request_id in enumerate(ids):
            page, status = list(PAGES.items())[number % len(PAGES)]
            response = requests.get(
                f"{self._url}{page}", headers={"X-Request-ID": request_id}, timeout=PATIENCE_SECONDS
            )
            assert response.status_code == int(status)
        return ids

    def read_until(self, text: str) -> str:
        """Begin to read, until the text has come."""
        output = b""
        while text.encode() not in output:
            assert select.select([self._reader], [], [], PATIENCE_SECONDS)[0], output
            output += os.read(self._reader, 65536)
        return output.decode()

    def close(self) -> None:
        os.close(self._reader)
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)


def test_a_log_that_nobody_reads_delays_no_request_and_no_stop(databases: Callable[[str], Database]) -> None:
    service = Unread(databases("sqlite").url)
    try:
        unread = service.ask("unread", 60)
        last = service.ask("last", 1)
        lines = service.read_until(last[0] + " ")
        # Nothing is lost, out of order or there twice, also not in another process than the one that logged it.
        assert re.findall(r"request_id=(\w+\.\d+)", lines) == [*unread, *last]
        assert len(re.findall("Listening at", lines)) == len(re.findall("Booting worker", lines)) == 1

        service.ask("again", 60)
        service.process.terminate()
        assert service.process.wait(PATIENCE_SECONDS) == 0
    finally:
        service.close()

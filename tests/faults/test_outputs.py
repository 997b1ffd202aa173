"""The service goes on while it cannot write what nobody is charged for: its metrics."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.databases import Database
from tests.support.small_disk import small_disk
from tests.support.socket_activated import SocketActivated
from tests.support.waiting import wait_until

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

"""gunicorn's settings, each number with its reason.

The timeouts depend on those of nginx, the gateway and the database: docs/deployment.md lists all; a test compares them.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

from gunicorn.glogging import Logger

sys.path.insert(0, str(Path(__file__).parent))  # gunicorn can be started from any folder

from config import WORKER_THREADS, ConfigError, gunicorn_settings, read_env_file

try:
    read_env_file()
    bind, workers = gunicorn_settings()
except ConfigError as error:
    sys.exit(f"refusing to start: {error}")

wsgi_app = "wsgi:app"

# ``bind``: by default only reachable from the same machine, for nginx. If systemd passes a socket, that one is used
# instead.

# ``workers``: by default two processes, so that the service goes on if one dies. Threads, because a request mostly
# waits for the database; other limits of a process are derived from their number.
worker_class = "gthread"
threads = WORKER_THREADS

# The app is loaded once, before the workers are forked: they start at once and share its memory. The price: a reload
# (HUP) starts new workers with the old code. Connections opened before the fork are not shared: each worker opens its
# own (db.engine.init_app).
preload_app = True

# Seconds without a heartbeat from a worker's main loop before the worker is killed. That loop only hands out
# connections, so this ends a process that hangs as a whole; the other timeouts end a slow request.
timeout = 45

# Seconds that a stopping worker has to finish its requests. The longest request that calls a gateway takes 41.5 s (a
# checkout that finds its payment ended), so a stop makes no outcome unknown. Shorter than nginx waits.
graceful_timeout = 45

# Seconds that an idle connection is kept open. Longer than nginx keeps it (60 s), so that nginx always closes it. If
# gunicorn closed it, that would sometimes cut off a request that nginx has just sent, and nginx must not repeat a POST.
keepalive = 75

# A worker is replaced after so many requests, as a precaution against unknown leaks. Not more often, because each
# worker leaves its metric files behind, and /metrics adds them all up. The jitter keeps both workers from stopping
# together.
max_requests = 100_000
max_requests_jitter = 10_000

# A worker's heartbeat touches a file; on a busy disk that could take longer than the timeout.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # gunicorn makes unguessable names

# gunicorn ignores all X-Forwarded headers: the app reads them, as TRUSTED_PROXIES says. By default gunicorn would
# believe X-Forwarded-Proto: https from any process on this machine.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# No control socket in a home directory: signals are enough.
control_socket_disable = True


class GunicornLogger(Logger):
    """Sends gunicorn's own messages to the app's log, in the same format. The app logs the requests itself."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log the reason for an unreadable request, but not its lines: they may hold a token."""
        if msg.startswith("Invalid request"):
            error = sys.exception()
            msg = f"Invalid request: {type(error).__name__}"
        super().warning(msg, *args, **kwargs)

    def atoms(self, resp: object, req: object, environ: dict[str, object], request_time: object) -> dict[str, object]:
        """What a line of the access log may be made of, for whoever switches it on: without the tokens of links."""
        from payments_app.observability.link_tokens import without_link_token  # noqa: PLC0415  # as in child_exit

        atoms: dict[str, object] = super().atoms(resp, req, environ, request_time)
        return {name: without_link_token(value) if isinstance(value, str) else value for name, value in atoms.items()}

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = GunicornLogger


def _remove_metric_files(folder: str, master: int) -> None:
    """The files belong to this run only. Not in gunicorn's ``on_exit``, which does not run after a refused start."""
    if os.getpid() == master:  # the master still adds up the files of workers that have ended
        shutil.rmtree(folder, ignore_errors=True)


# Each process writes its metrics to files in this folder, and /metrics adds them up. The variable must be set before
# the first import of prometheus_client, which reads it then. A reload (HUP) runs this file again in the same process:
# the folder stays the same, or all counters would start at 0 again. A new master (USR2) has another process id and
# folder.
_prefix = f"payments-metrics-{os.getpid()}-"
if _prefix not in os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", ""):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_prefix)
    atexit.register(_remove_metric_files, os.environ["PROMETHEUS_MULTIPROC_DIR"], os.getpid())


def pre_fork(_server: object, _worker: object) -> None:
    """Exclude everything loaded so far from garbage collection: it stays until the end.

    A collection writes to each object it visits, so the memory pages would no longer be shared with the master. That
    was half of a worker's own memory, at its first full collection.
    """
    gc.collect()
    gc.freeze()


def child_exit(_server: object, worker: object) -> None:
    """Remove the ended process from the gauges of live processes."""
    from prometheus_client import multiprocess  # noqa: PLC0415  # only after PROMETHEUS_MULTIPROC_DIR is set

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[attr-defined]  # gunicorn's worker

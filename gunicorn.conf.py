"""How gunicorn serves the app; each number with its reason."""

import os
import shutil
import tempfile

from gunicorn.glogging import Logger

wsgi_app = "wsgi:app"
bind = f"127.0.0.1:{os.environ.get('PORT', '8000')}"

# Two processes: one may die in mid-sentence and the other goes on. Threads, because a request mostly waits for the
# database: eight a process keep both cores busy, and the connection pool (database.engine_options) holds as many.
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 8

# Loaded once, before the workers are forked, which then start at once and share its memory. Nothing is connected by
# then: connections to database, Redis and gateways are made when first used, each worker's own.
preload_app = True

# Seconds. Longer than any honest request (a gateway call may take 10), shorter than nginx's patience.
timeout = 30
graceful_timeout = 30

# Seconds that an idle connection is kept: longer than nginx's, so that it is never cut under a request.
keepalive = 75

# Nobody is to steer the server through a socket in a home directory.
control_socket_disable = True


class OurLogger(Logger):
    """gunicorn's own messages go where the app's go, in the same shape. Requests are logged by the app alone."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = OurLogger

# Each process writes its numbers to files in this folder, and /metrics adds them up. Named before prometheus_client is
# first imported, which is when that decides where to count.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="payments-metrics-")


def on_exit(_server: object) -> None:
    """The numbers are this run's alone."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])


def child_exit(_server: object, worker: object) -> None:
    """A process that has ended counts no more among the live ones."""
    from prometheus_client import multiprocess  # noqa: PLC0415  # not before the folder is named

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[attr-defined]  # gunicorn's worker

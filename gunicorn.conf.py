"""gunicorn's settings, each number with its reason.

The timeouts depend on those of nginx, the gateway and the database: docs/deployment.md lists all; a test compares them.
"""

import gc
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

sys.path.insert(0, str(Path(__file__).parent))  # gunicorn can be started from any folder

from config import WORKER_THREADS, ConfigError, gunicorn_settings, read_env_file

try:
    read_env_file()
    bind, workers, health_address = gunicorn_settings()
except ConfigError as error:
    sys.exit(f"refusing to start: {error}")

wsgi_app = "wsgi:app"

# ``bind``: by default only reachable from the same machine, for nginx. If systemd passes a socket, that one is used
# instead.

# ``workers``: by default two processes, so that the service goes on if one dies. Threads, because a request mostly
# waits for the database; other limits of a process are derived from their number.
worker_class = "gthread"
threads = WORKER_THREADS

# A worker accepts a connection only while it has an idle thread. The others wait in the socket's queue, which all
# workers share. If a worker accepted more than it can serve, they would wait for it while another worker idles.
worker_connections = threads

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

# Seconds that an idle connection is kept open: it is closed after one request. A kept connection belongs to the worker
# that has accepted it, so all could belong to one of two workers, and the other one would idle for as long as nginx
# keeps them. Besides, nginx must not repeat a POST that it has sent just when gunicorn closes a kept connection.
keepalive = 0

# A worker is replaced after so many requests, as a precaution against unknown leaks. The jitter keeps both workers from
# stopping together.
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
        from payments_app.observability.link_tokens import without_link_token  # noqa: PLC0415  # as in on_starting

        atoms: dict[str, object] = super().atoms(resp, req, environ, request_time)
        return {name: without_link_token(value) if isinstance(value, str) else value for name, value in atoms.items()}

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logger_class = GunicornLogger


def on_starting(server: Any) -> None:
    """Once, in the master, with the app loaded: what all processes share, what no request may wait for, and the process
    that answers /healthz and /readyz whatever the request threads do (HEALTH_BIND).
    """
    # Not at the top of this file: wsgi.py loads the app, and says why it cannot.
    from payments_app.health.supervisor import HealthListener  # noqa: PLC0415
    from payments_app.observability import background_output, shared_values  # noqa: PLC0415

    shared_values.share(workers)
    background_output.start()
    if health_address is None:
        return
    try:
        server.health_listener = HealthListener(server, health_address)
    except OSError as error:
        sys.exit(f"refusing to start: HEALTH_BIND cannot be used: {error}")


def pre_exec(server: object) -> None:
    """Let the new master (USR2) answer on the health listener's socket too."""
    if (listener := getattr(server, "health_listener", None)) is not None:
        listener.hand_over()


def on_exit(server: object) -> None:
    """End the health listener with the master."""
    if (listener := getattr(server, "health_listener", None)) is not None:
        listener.end()


def pre_fork(_server: object, worker: Worker) -> None:
    """Reserve room for the worker's metrics; exclude everything loaded so far from garbage collection.

    All of it stays until the end. A collection writes to each object it visits, so the memory pages would no longer be
    shared with the master. That was half of a worker's own memory, at its first full collection.
    """
    from payments_app.observability import shared_values  # noqa: PLC0415  # as in on_starting

    worker.metrics_slot = shared_values.reserve()
    gc.collect()
    gc.freeze()


def post_worker_init(worker: Worker) -> None:
    """Let the app know when this worker is asked to stop: its requests then wait for a silent database only once.

    The worst case is a statement's own deadline of 6 s. The other requests have the whole ``graceful_timeout``.
    """
    from payments_app.db import deadline  # noqa: PLC0415  # as in on_starting

    deadline.set_stop_check(lambda: not worker.alive)


def post_fork(server: object, worker: Worker) -> None:
    """Count in the room that was reserved, and leave the health listener to the master."""
    from payments_app.observability import shared_values  # noqa: PLC0415  # as in on_starting

    shared_values.publish_in(worker.metrics_slot)
    if (listener := getattr(server, "health_listener", None)) is not None:
        listener.close_in_worker()


def child_exit(_server: object, worker: Worker) -> None:
    """Remove the ended process from the gauges of live processes; another one continues its counts."""
    from payments_app.observability import shared_values  # noqa: PLC0415  # as in on_starting

    shared_values.release(worker.metrics_slot)

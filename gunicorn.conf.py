"""How gunicorn serves the app; each number with its reason.

The timeouts are steps of one ladder, which docs/deployment.md shows whole; a test compares them.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

from gunicorn.glogging import Logger

sys.path.insert(0, str(Path(__file__).parent))  # wherever it was started from

from config import ConfigError, gunicorn_settings, read_env_file

try:
    read_env_file()
    bind, workers = gunicorn_settings()
except ConfigError as refusal:
    sys.exit(f"refusing to start: {refusal}")

wsgi_app = "wsgi:app"

# ``bind``: by default for nginx on the same machine, and nobody else. Where systemd hands over its socket, that one is
# used instead.

# ``workers``: by default two processes, of which one may die in mid-sentence and the other goes on. Threads, because a
# request mostly waits for the database: eight a process keep both cores busy, and the connection pool
# (engines.engine_options) holds as many.
worker_class = "gthread"
threads = 8

# Loaded once, before the workers are forked, which then start at once and share its memory. For that, a reload (HUP)
# starts new workers with the old code. What was connected by then is not shared: engines.init_app sees to it.
preload_app = True

# Seconds without a sign of life from a worker's main loop before it is killed. That loop does nothing but hand out
# connections, so only a process that hangs as a whole is caught by it; a slow request is ended by the ladder's steps.
timeout = 45

# Seconds that a stopping worker has for the requests that it is at: longer than the longest that asks a gateway, a
# checkout that finds its payment ended (41.5 s), so that stopping makes no outcome unknown; shorter than nginx waits.
graceful_timeout = 45

# Seconds that an idle connection is kept: longer than nginx keeps it (60 s), so that it is always nginx who closes it.
# The other way about, it would be closed under a request now and then, and a POST may not be sent twice.
keepalive = 75

# A worker is replaced after so many requests, as a precaution against leaks that nobody has found yet; not more often,
# because each leaves its counts behind, in files that are added up for /metrics. Not both workers at the same moment.
max_requests = 100_000
max_requests_jitter = 10_000

# Workers show that they live by touching a file; on a disk that is busy, that could take longer than the timeout.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # gunicorn makes unguessable names

# What a request says of its own way here is not gunicorn's to believe: TRUSTED_PROXIES alone decides, in the app. By
# default gunicorn would take "this came by https" from anybody on this machine.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# Nobody is to steer the server through a socket in a home directory.
control_socket_disable = True


class GunicornLogger(Logger):
    """gunicorn's own messages go where the app's go, in the same shape. Requests are logged by the app alone."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Of a request that cannot be read, what is wrong, and not the line: it may hold a token."""
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


def _drop_the_numbers(folder: str, master: int) -> None:
    """They are this run's alone. Not in gunicorn's ``on_exit``, which a start that is refused never comes to."""
    if os.getpid() == master:  # a worker that ends leaves them to the others
        shutil.rmtree(folder, ignore_errors=True)


# Each process writes its numbers to files in this folder, and /metrics adds them up. Named before prometheus_client is
# first imported, which is when that decides where to count. A reload (HUP) reads this file again in the same process:
# the folder stays, or all counters would begin anew. Another server, as after USR2, has another process id and folder.
_prefix = f"payments-metrics-{os.getpid()}-"
if _prefix not in os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", ""):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_prefix)
    atexit.register(_drop_the_numbers, os.environ["PROMETHEUS_MULTIPROC_DIR"], os.getpid())


def pre_fork(_server: object, _worker: object) -> None:
    """What was loaded before is nobody's garbage. Looking through it would write to it, and so end its being shared:
    half of a worker's own memory, at its first full collection.
    """
    gc.collect()
    gc.freeze()


def child_exit(_server: object, worker: object) -> None:
    """A process that has ended counts no more among the live ones."""
    from prometheus_client import multiprocess  # noqa: PLC0415  # not before the folder is named

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[attr-defined]  # gunicorn's worker

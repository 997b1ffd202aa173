"""Debian's etcd, from deploy/patroni/etcd.env."""

import os
import random
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.support.databases import ROOT
from tests.support.waiting import PATIENCE_SECONDS, wait_until

FILES = ROOT / "deploy" / "patroni"
HOST = "127.0.0.1"

# Seconds for a request to etcd or Patroni, which answer at once unless they are frozen.
ANSWER_SECONDS = 2


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
            answer = requests.get(f"http://{self.address}/health", timeout=ANSWER_SECONDS)
            return bool(answer.json() == {"health": "true"})
        return False

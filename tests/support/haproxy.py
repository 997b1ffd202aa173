"""Debian's HAProxy with deploy/patroni/haproxy.cfg, in front of the nodes of a cluster."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.etcd import FILES
from tests.support.patroni_node import Node
from tests.support.service import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

CONFIGURATION = FILES / "haproxy.cfg"
_SERVER = re.compile(r"server (\w+) \S+ check port \d+")


def haproxy_program() -> str:
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no HAProxy: apt-get install haproxy")
    return program


class Balancer:
    """An address that leads to the primary."""

    def __init__(self, folder: Path, nodes: list[Node], addresses: list[tuple[str, int]]) -> None:
        """``addresses``: where each node's PostgreSQL is; whether it is the primary is asked of the node."""
        self.host, self.port = "127.0.0.1", free_port()
        servers = {
            node.name: f"server {node.name} {host}:{port} check port {node.api.rpartition(':')[2]}"
            for node, (host, port) in zip(nodes, addresses, strict=True)
        }
        shipped = CONFIGURATION.read_text()
        assert shipped.count("bind 127.0.0.1:5000") == 1
        ours = shipped.replace("bind 127.0.0.1:5000", f"bind {self.host}:{self.port}")
        ours, replaced = _SERVER.subn(lambda match: servers.pop(match[1]), ours)
        assert replaced == len(nodes)
        (folder / "haproxy.cfg").write_text(ours)
        with (folder / "haproxy.log").open("wb") as output:
            self._process = subprocess.Popen(
                [haproxy_program(), "-db", "-f", str(folder / "haproxy.cfg")],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._leads_somewhere, (folder / "haproxy.log").read_text)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def _leads_somewhere(self) -> bool:
        """HAProxy closes a connection at once if no server is up; PostgreSQL waits for the client to begin."""
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as probe:
            probe.settimeout(0.2)
            try:
                return probe.recv(1) != b""
            except TimeoutError:
                return True
        return False


@contextmanager
def haproxy_before(nodes: list[Node], addresses: list[tuple[str, int]]) -> Iterator[Balancer]:
    with tempfile.TemporaryDirectory(prefix="payments-haproxy-") as name:
        balancer = Balancer(Path(name), nodes, addresses)
        try:
            yield balancer
        finally:
            balancer.close()

"""A PostgreSQL of two nodes that fails over by itself: Patroni with etcd, from the files of deploy/patroni."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import requests
from sqlalchemy import URL

from tests.support import databases
from tests.support.etcd import ANSWER_SECONDS, FILES, HOST, Etcd
from tests.support.patroni_node import DATABASE, PASSWORD, Node
from tests.support.waiting import wait_until


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
            f"http://{self.primary.api}/config", json=settings, auth=("patroni", PASSWORD), timeout=ANSWER_SECONDS
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
    with tempfile.TemporaryDirectory(prefix="payments-patroni-", dir=databases.POSTGRESQL_PARENT) as name:
        cluster = PatroniCluster(Path(name))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()

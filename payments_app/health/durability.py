"""Whether the PostgreSQL server keeps what it has acknowledged: after a power cut, and after a failover.

``synchronous_commit`` is a setting of our connections: ``schema_checks`` has it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from payments_app.db.transaction import read_transaction

_CONSEQUENCES = {
    "fsync": "committed payments may be lost in a power cut",
    "full_page_writes": "a power cut may leave pages of the database that are half old and half new",
}

# Every role sees how many servers follow. Only one with pg_monitor sees the state and the name: then a base backup is
# not counted. A slot that is temporary is a backup's as well, and one for logical decoding is no standby's.
_SERVER = text(
    """
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_standby_names') AS waits_for,
           (SELECT count(*) FROM pg_stat_replication AS r
            WHERE coalesce(state, 'streaming') = 'streaming'
              AND coalesce(application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal')
              AND NOT EXISTS (SELECT FROM pg_replication_slots AS s
                              WHERE s.active_pid = r.pid AND (s.temporary OR s.slot_type = 'logical'))) AS standbys
    """
)


@dataclass(frozen=True, slots=True)
class Durability:
    """``off``: the settings that should be on. ``asynchronous``: standbys that no commit waits for."""

    off: Sequence[str]
    asynchronous: int

    def faults(self) -> Iterator[str]:
        """What loses acknowledged payments in a power cut."""
        for name in self.off:
            yield f"{name} is off: {_CONSEQUENCES[name]}"

    def notes(self) -> Iterator[str]:
        """What loses acknowledged payments only if this server is lost and a standby takes over.

        Not a fault: some have a standby for reports or far away, from which they never take over. And to a role without
        pg_monitor a base backup looks like one: backups would stop payments.
        """
        if self.asynchronous:
            yield (
                "a standby follows, and synchronous_standby_names is empty: an acknowledged payment may be lost if the"
                " standby takes over (docs/deployment.md)"
            )


@read_transaction
def server_durability(session: Session) -> Durability:
    """What the server has set. Nothing is off in SQLite: this service sets what it needs."""
    if session.get_bind().dialect.name == "sqlite":
        return Durability(off=(), asynchronous=0)
    found = session.execute(_SERVER).mappings().one()
    off = [name for name in _CONSEQUENCES if found[name] == "off"]
    return Durability(off, 0 if found["waits_for"].strip() else found["standbys"])

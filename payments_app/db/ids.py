"""Ids handed out in blocks, so that a row's id, and with it the whole answer, is known before anything is sent.

One row of ``id_blocks`` per table says where the next block starts; a process takes a block in a short transaction
of its own and counts through it in memory. A process that ends leaves a gap: ids are unique and roughly rising, but
no clock. Whoever wants the order of events sorts by (created_at, id).
"""

import os
import threading
from collections.abc import Iterator
from itertools import chain

from flask import Flask, current_app
from sqlalchemy import CheckConstraint, String, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from payments_app.db.base import Base, BigId
from payments_app.db.transaction import write_transaction

# Two extra transactions (payments, invoices) in so many creates cost about 2 % of them; a restart wastes at most this
# many ids of 2^63.
BLOCK_SIZE = 100


class IdBlock(Base):
    """The first id of the next block of one table."""

    __tablename__ = "id_blocks"
    __table_args__ = (CheckConstraint("next_id > 0", name="next_id_positive"),)

    table_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    next_id: Mapped[int] = mapped_column(BigId)


class _Blocks:
    """The block in hand of each table, for one app in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_hand: dict[str, Iterator[int]] = {}
        self._process_id = os.getpid()

    def next_id(self, table_name: str) -> int:
        with self._lock:
            if self._process_id != os.getpid():  # forked: the rest of the parent's blocks is the parent's
                self._process_id = os.getpid()
                self._in_hand.clear()
            taken = next(self._in_hand.get(table_name, iter(())), None)
        if taken is not None:
            return taken
        # Not under the lock, or all threads would wait for a slow database one after the other. Those who come here
        # at the same moment take a block each, and all blocks are used up in the end.
        first = _take_block(table_name, BLOCK_SIZE)
        with self._lock:
            rest = range(first + 1, first + BLOCK_SIZE)
            self._in_hand[table_name] = chain(rest, self._in_hand.get(table_name, iter(())))
        return first


def init_app(app: Flask) -> None:
    app.extensions["ids"] = _Blocks()


def next_id(table_name: str) -> int:
    """A new id for a row of ``table_name``.

    Opens a transaction when a block is used up: not to be called inside another one.
    """
    blocks: _Blocks = current_app.extensions["ids"]
    return blocks.next_id(table_name)


@write_transaction
def _take_block(session: Session, table_name: str, size: int) -> int:
    # Core, not a loaded object: the counter has no version to guard, and one statement is atomic by itself.
    raised = (
        update(IdBlock)
        .where(IdBlock.table_name == table_name)
        .values(next_id=IdBlock.next_id + size)
        .returning(IdBlock.next_id)
    )
    return session.execute(raised).scalar_one() - size

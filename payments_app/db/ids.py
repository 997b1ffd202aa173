"""Assigns ids in blocks, so that a row's id, and with it the whole response, is known before anything is sent.

One row of ``id_blocks`` per table holds the start of the next block. A process takes a block in a short transaction of
its own, and counts through it in memory. A process that ends leaves a gap: ids are unique and roughly ascending, but
they are no clock. For the order of events, sort by (created_at, id).
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

# Two extra transactions (payments, invoices) per 100 creates add about 2 % to their cost. A restart wastes at most this
# many ids per table, of 2^63.
BLOCK_SIZE = 100


class IdBlock(Base):
    """The first id of the next block of one table."""

    __tablename__ = "id_blocks"
    __table_args__ = (CheckConstraint("next_id > 0", name="next_id_positive"),)

    table_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    next_id: Mapped[int] = mapped_column(BigId)


class _Blocks:
    """The current block of each table, for one app in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._remaining: dict[str, Iterator[int]] = {}
        self._process_id = os.getpid()

    def next_id(self, table_name: str) -> int:
        with self._lock:
            if self._process_id != os.getpid():  # forked: the parent keeps the rest of its blocks
                self._process_id = os.getpid()
                self._remaining.clear()
            free_id = next(self._remaining.get(table_name, iter(())), None)
        if free_id is not None:
            return free_id
        # Not under the lock, or all threads would wait for a slow database one after the other. Threads that arrive
        # here at the same moment take a block each, and every block is used.
        first = _take_block(table_name, BLOCK_SIZE)
        with self._lock:
            rest = range(first + 1, first + BLOCK_SIZE)
            self._remaining[table_name] = chain(rest, self._remaining.get(table_name, iter(())))
        return first


def init_app(app: Flask) -> None:
    app.extensions["ids"] = _Blocks()


def next_id(table_name: str) -> int:
    """A new id for a row of ``table_name``.

    It opens a transaction when a block is used up, so do not call it inside another one.
    """
    blocks: _Blocks = current_app.extensions["ids"]
    return blocks.next_id(table_name)


@write_transaction
def _take_block(session: Session, table_name: str, size: int) -> int:
    # A Core statement, not a loaded object: the counter has no version to guard, and one statement is atomic.
    increment = (
        update(IdBlock)
        .where(IdBlock.table_name == table_name)
        .values(next_id=IdBlock.next_id + size)
        .returning(IdBlock.next_id)
    )
    return session.execute(increment).scalar_one() - size

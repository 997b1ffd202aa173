"""One page of a list with keyset pagination: a fixed number of rows after a position."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """The rows of one page, and whether more rows follow."""

    rows: Sequence[Row]
    has_more: bool

    @classmethod
    def cut(cls, rows_and_one: Sequence[Row], per_page: int) -> "Page[Row]":
        """A page from up to ``per_page`` + 1 rows: the extra row shows, without a count, that another page follows."""
        return cls(rows_and_one[:per_page], len(rows_and_one) > per_page)

"""One page of a list that is read by keyset: from a position on, a fixed number of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows of one page, and whether there are more behind them."""

    rows: Sequence[Row]
    has_more: bool

    @classmethod
    def cut(cls, rows_and_one: Sequence[Row], per_page: int) -> "Page[Row]":
        """From one row more than a page holds, which tells whether there is a next page without counting."""
        return cls(rows_and_one[:per_page], len(rows_and_one) > per_page)

"""Which storms are run with which locking strategy."""

from pathlib import Path

import pytest

from payments_app.locking.locks import Strategy

# Fifty clicks and twenty refunds decide; the other storms ask the index and the version, which no strategy replaces.
DECISIVE = (
    "test_fifty_clicks_with_a_key_each_make_one_payment",
    "test_of_twenty_refunds_of_thirty_percent_no_more_than_three_succeed_and_after_retries_three",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the strategies that only add locks, the short form tries the decisive storms; the long form tries all."""
    here = Path(__file__).parent
    for item in items:
        if (
            here not in item.path.parents
            or not isinstance(item, pytest.Function)
            or "strategy" not in item.fixturenames
        ):
            continue
        if item.callspec.params["strategy"] != Strategy.OPTIMISTIC and item.originalname not in DECISIVE:
            item.add_marker(pytest.mark.long)

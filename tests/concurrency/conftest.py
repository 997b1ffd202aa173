"""Chooses the storms to run for each locking strategy."""

from pathlib import Path

import pytest

from payments_app.locking.locks import Strategy

# These two depend on the strategy; the others test the index and the version, which all strategies have. Refunds take
# long: `hybrid` has the locks of the other two.
DECISIVE = {
    "test_fifty_clicks_with_a_key_each_make_one_payment": set(Strategy),
    "test_of_twenty_refunds_of_thirty_percent_no_more_than_three_succeed_and_after_retries_three": {Strategy.HYBRID},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For strategies that only add locks, the short form runs the decisive storms on PostgreSQL; the long form, all.

    Leases are in Redis, and SQLite has no row locks: with these strategies, SQLite adds nothing to what the optimistic
    one shows on it.
    """
    here = Path(__file__).parent
    for item in items:
        if (
            here not in item.path.parents
            or not isinstance(item, pytest.Function)
            or "strategy" not in item.fixturenames
        ):
            continue
        strategy, database = (item.callspec.params[name] for name in ("strategy", "database"))
        if strategy == Strategy.OPTIMISTIC:
            continue
        if strategy not in DECISIVE.get(item.originalname, ()) or database == "sqlite":
            item.add_marker(pytest.mark.long)

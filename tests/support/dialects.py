"""On which databases a test runs, if not on both. For ``pytestmark``, or one test."""

import pytest

DIALECTS = ("sqlite", "postgresql")

# For tests of what only SQLite has, or of what is the same on both and needs no server.
on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
# For tests of what only PostgreSQL has, or of what is the same on both.
on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
# For long tests of what lighter ones also show on SQLite.
long_on_sqlite = pytest.mark.parametrize(
    "database", ["postgresql", pytest.param("sqlite", marks=pytest.mark.long)], indirect=True, scope="session"
)

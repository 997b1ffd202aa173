"""The encoding of the database and of a connection: both must be UTF-8, or names are lost, or refused."""

from sqlalchemy import Connection

_NEEDED = "UTF8"


def encoding_fault(*, server: str, client: str) -> str | None:
    """What is wrong with PostgreSQL's ``server_encoding`` and ``client_encoding``, and the line that mends it."""
    if server != _NEEDED:
        return (
            f"server_encoding is {server}, not {_NEEDED}: an existing database cannot change it. Make a new one:"
            f" createdb --encoding {_NEEDED} --template template0 NAME (docs/operations.md has how to move the data)"
        )
    if client != _NEEDED:
        return (
            f"client_encoding is {client}, not {_NEEDED}: ALTER ROLE payments SET client_encoding = '{_NEEDED}'"
            " (payments: the role of DATABASE_URL)"
        )
    return None


def connection_encoding_fault(connection: Connection) -> str | None:
    """The fault of this connection to PostgreSQL."""
    server, client = (
        connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("server_encoding", "client_encoding")
    )
    return encoding_fault(server=server, client=client)

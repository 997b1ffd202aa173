"""The ``locks`` commands: show operators which locks are held in Redis."""

from dataclasses import asdict

import click

from payments_app.commands import CommandGroup, say, say_json
from payments_app.locking.locks import list_leases
from payments_app.printable import printable
from payments_app.redis_client import RedisUnavailable

locks = CommandGroup("locks", help="Show the locks in Redis.")


@locks.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print each lease as a line of JSON.")
def list_locks(as_json: bool) -> None:
    """List the leases held at present: name, owner (host/process/request) and seconds left.

    Exits with 2 if no Redis is configured, or if it does not answer.
    """
    try:
        leases = list_leases()
    except RedisUnavailable:
        raise click.UsageError("No Redis is configured, or it does not answer: see REDIS_URL") from None
    if as_json:
        for lease in leases:
            say_json(asdict(lease))
        return
    if not leases:
        say("no locks are held")
        return
    names = {lease.name: printable(lease.name) for lease in leases}
    width = max(map(len, names.values()))
    say(f"{'lock':<{width}}  seconds left  owner")
    for lease in leases:
        left = "no end" if lease.remaining_seconds is None else f"{lease.remaining_seconds:.1f}"
        say(f"{names[lease.name]:<{width}}  {left:>12}  {lease.owner}")

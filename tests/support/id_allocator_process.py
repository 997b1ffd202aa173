"""``python -m tests.support.id_allocator_process COUNT GATE``: takes ids, forks, and takes ids on both sides.

It waits for the file GATE first, so that several of them can begin at the same moment.
"""

import json
import os
import sys
from pathlib import Path

from payments_app.db.ids import next_id
from tests.support.apps import engine_of
from tests.support.waiting import wait_until
from wsgi import app


def main(count: int, gate: Path) -> None:
    print("ready", flush=True)  # noqa: T201  # the test that started it waits for this
    wait_until(gate.exists)
    with app.app_context():
        taken = [next_id("payments")]  # so that it holds a block when it forks
        engine_of(app).dispose()
        results, child_writes = os.pipe()
        child = os.fork()
        taken += [next_id("payments") for _ in range(count)]
        if child == 0:
            os.write(child_writes, json.dumps(taken[1:]).encode() + b"\n")
            os._exit(0)
        with os.fdopen(results) as lines:
            by_child = json.loads(lines.readline())
        os.waitpid(child, 0)
        engine_of(app).dispose()
    print(json.dumps([*taken, *by_child]))  # noqa: T201  # the test reads this


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

"""Measures what each duty costs the FastAPI peer on asyncpg: ``python -m bench.duties``.

Creates go through the peer's ASGI app in one process, without a server, with token, validation and fingerprint, but
without a database, whose noise would be larger than a duty. Apps with one duty each, with none and with all take turns.
The peer has a process of its own, because this service changes how prometheus_client keeps its numbers.
"""

import os
import subprocess
import sys
import tempfile

from tests.support.databases import ROOT


def main() -> None:
    """Print the least microseconds of processor time and the function calls of a create, by duty."""
    with tempfile.TemporaryDirectory(prefix="bench-metrics-") as folder:
        variables = {"JWT_SECRET_KEY": "signs-the-tokens-of-this-measurement", "PROMETHEUS_MULTIPROC_DIR": folder}
        command = [sys.executable, "-m", "bench.peers.duty_costs"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()

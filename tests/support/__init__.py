"""Servers, databases, clients and fakes that the tests use.

The package that starts PostgreSQL keeps a lock file in the user's runtime folder, or in ``/tmp`` if there is none; a
file of one user there locks out all others. So each user gets a runtime folder before that package is imported.
"""

import os
import tempfile
from pathlib import Path

if "XDG_RUNTIME_DIR" not in os.environ:
    runtime = Path(tempfile.gettempdir()) / f"payments-runtime-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
(Path(os.environ["XDG_RUNTIME_DIR"]) / "python_PostgresServer").mkdir(exist_ok=True)

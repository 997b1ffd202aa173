"""The real parts that tests stand on.

What starts PostgreSQL keeps a lock file in the user's runtime folder, and where there is none in ``/tmp``, where one
user's file keeps all others out. So each user gets such a folder, before it is first imported.
"""

import os
import tempfile
from pathlib import Path

if "XDG_RUNTIME_DIR" not in os.environ:
    runtime = Path(tempfile.gettempdir()) / f"payments-runtime-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
(Path(os.environ["XDG_RUNTIME_DIR"]) / "python_PostgresServer").mkdir(exist_ok=True)

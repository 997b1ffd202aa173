"""The entry point of gunicorn (``wsgi:app``) and of ``flask --app wsgi``."""

import gc
import os
import sys
from typing import NoReturn

# Nothing to speak of that is loaded here is ever garbage. Looking for it, here and once more when the process
# ends, takes a good third of the time of a command.
gc.disable()

try:
    from config import ConfigError, read_env_file  # what is imported is what there is to look through
except ModuleNotFoundError as missing:
    # Another Python's `flask` was started. A module of our own that is missing is a mistake in the code: show where.
    if missing.name is None or missing.name.partition(".")[0] in ("config", "payments_app"):
        raise
    sys.stderr.write(
        f"{sys.executable} has no package {missing.name!r}: use ./payments or .venv/bin/flask, installed by make run\n"
    )
    sys.exit(2)


def _refuse(why: str) -> NoReturn:
    """In one plain line. Exit 2: of a command, which begins with this too, 1 would be a verdict."""
    # payments_app/printable.py may be what cannot be loaded.
    line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in why)
    sys.stderr.write(f"refusing to start: {line}\n")
    sys.exit(2)


try:
    from payments_app import create_app

    read_env_file()
    app = create_app()
except ConfigError as refusal:
    _refuse(str(refusal))
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:  # such as a folder that may not be written to
    if os.environ.get("LOG_LEVEL") == "DEBUG":
        raise
    _refuse(f"{type(error).__name__}: {error} (where: LOG_LEVEL=DEBUG shows it)")

gc.freeze()
gc.enable()

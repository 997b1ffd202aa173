"""The entry point of gunicorn (``wsgi:app``) and of ``flask --app wsgi``."""

import gc
import os
import sys
from typing import NoReturn

# Almost nothing that is loaded here ever becomes garbage. Collecting it, here and once more when the process ends,
# would take a good third of a command's time.
gc.disable()

try:
    from config import ConfigError, Settings, read_env_file  # imported after gc.disable(), or the collector runs
except ModuleNotFoundError as missing:
    # The `flask` of another Python was started. If one of our own modules is missing, it is a bug: show the traceback.
    if missing.name is None or missing.name.partition(".")[0] in ("config", "payments_app"):
        raise
    sys.stderr.write(
        f"{sys.executable} has no package {missing.name!r}: use ./payments or .venv/bin/flask, installed by make run\n"
    )
    sys.exit(2)


def _refuse(reason: str) -> NoReturn:
    """Print one line and exit with 2. Commands start here too, and their exit status 1 means "a check failed"."""
    # Not payments_app/printable.py: that may be the module that cannot be loaded.
    line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in reason)
    sys.stderr.write(f"refusing to start: {line}\n")
    sys.exit(2)


try:
    # Before the service is loaded, which takes most of a start: a wrong setting is told at once.
    read_env_file()
    settings = Settings.from_environment()

    from payments_app import create_app

    app = create_app(settings)
except ConfigError as error:
    _refuse(str(error))
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:  # such as a folder without write permission
    if os.environ.get("LOG_LEVEL") == "DEBUG":
        raise
    _refuse(f"{type(error).__name__}: {error} (where: LOG_LEVEL=DEBUG shows it)")

gc.freeze()
gc.enable()

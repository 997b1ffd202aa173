"""The entry point of gunicorn (``wsgi:app``) and of ``flask --app wsgi``."""

import gc
import sys

# Nothing to speak of that is loaded here is ever garbage. Looking for it, here and once more when the process
# ends, takes a good third of the time of a command.
gc.disable()

from config import ConfigError, read_env_file  # noqa: E402  # what is imported is what there is to look through
from payments_app import create_app  # noqa: E402  # as above

read_env_file()
try:
    app = create_app()
except ConfigError as refusal:
    sys.exit(f"refusing to start: {refusal}")

gc.freeze()
gc.enable()

"""The entry point of gunicorn (``wsgi:app``) and of ``flask --app wsgi``."""

import sys

from config import ConfigError, read_env_file
from payments_app import create_app

read_env_file()
try:
    app = create_app()
except ConfigError as refusal:
    sys.exit(f"refusing to start: {refusal}")

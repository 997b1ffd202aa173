"""The entry point of gunicorn (``wsgi:app``) and of ``flask --app wsgi``."""

import sys

from dotenv import load_dotenv

from config import ConfigError
from payments_app import create_app

load_dotenv()
try:
    app = create_app()
except ConfigError as refusal:
    sys.exit(f"refusing to start: {refusal}")

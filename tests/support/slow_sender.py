"""`webhooks send`, whose attempts may take longer, so that a test can do something meanwhile: ``python -m`` it.

Settings come from the environment.
"""

import os

import click

from payments_app.webhook_endpoints import attempt
from payments_app.webhook_endpoints.deliveries import LEASE
from payments_app.webhook_endpoints.sender import Sender, _Threads
from tests.support.apps import app_with

# A sender begins nothing that would not end in the first half of a lease. Five seconds are left to begin.
ATTEMPT_SECONDS = LEASE.total_seconds() / 2 - 5

HAS_LOOKED = "it has looked"


class _Sender(Sender):
    """Says when it has looked for something to send the first time."""

    has_said = False

    def _look(self, threads: _Threads) -> bool:
        has_more = super()._look(threads)
        if not self.has_said:
            click.echo(HAS_LOOKED)
            self.has_said = True
        return has_more


def main() -> None:
    attempt.ATTEMPT_SECONDS = ATTEMPT_SECONDS
    with app_with(os.environ["DATABASE_URL"], WEBHOOK_ALLOW_PRIVATE="1") as app, app.app_context():
        _Sender(app).run()


if __name__ == "__main__":
    main()

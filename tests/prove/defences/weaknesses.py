"""Ways to take a defence out of a running service, each behind a switch: a file of its name in a folder.

They are for defences that stand in the code. Those that stand in the database are dropped there.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from gunicorn.app.wsgiapp import WSGIApplication

from payments_app.accounts import repository as accounts
from payments_app.accounts.caller import LinkRecord
from payments_app.gateways import signatures
from payments_app.gateways.stripe import webhooks
from payments_app.payments.models.payment import Payment
from payments_app.readiness import Readiness

# The insert of a payment goes past the index: without this, PostgreSQL refuses the statement once the index is gone.
PLAIN_INSERT = "plain-insert"
# The same for the insert of an event.
PLAIN_EVENT = "plain-event"
# No look at what the service stands on; or else one before every payment, where there is one in ten seconds otherwise.
NO_LOOK, LOOK_EACH_TIME = "no-look", "look-each-time"
# The version is raised as ever, and not compared.
NO_VERSION = "no-version"
# A refund is not compared with what is left.
NO_BALANCE = "no-balance"
NO_SIGNATURE = "no-signature"
# A payer's request is let in whatever became of its link; or everywhere, a revoked link counts as an open one.
NO_LINK_CHECK, NO_REVOCATION = "no-link-check", "no-revocation"

_REWRITTEN = {
    PLAIN_INSERT: (r"ON CONFLICT \(consultation_id\) WHERE .*? DO NOTHING", ""),
    PLAIN_EVENT: (r"ON CONFLICT \(gateway, event_id\) DO UPDATE SET .*? (?=RETURNING)", ""),
    NO_REVOCATION: (r"payment_links\.revoked_at IS NULL", "TRUE"),
    NO_VERSION: (r"(UPDATE payments SET .* WHERE payments\.id = \S+) AND payments\.version = \S+", r"\1"),
}


def serve(settings: dict[str, str], switches: Path, log: str) -> None:
    """The service as ``gunicorn`` starts it, with the switches built in; to be run in a process of its own."""
    with Path(log).open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(settings)
    _build_in(lambda name: (switches / name).exists())
    sys.argv = ["gunicorn"]  # it reads gunicorn.conf.py of the folder that it is started in
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]").run()


def _build_in(is_on: Callable[[str], bool]) -> None:
    execute, run_checks = psycopg.Cursor.execute, Readiness.run_checks
    refundable = Payment.refundable_minor.fget  # type: ignore[attr-defined]
    valid_signatures = signatures.valid_signatures

    def rewriting(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else query
        for name, (pattern, replacement) in _REWRITTEN.items():
            if is_on(name) and isinstance(text, str):
                text = re.sub(pattern, replacement, text, flags=re.DOTALL)
        return execute(cursor, text, *args, **kwargs)

    def looking(readiness: Readiness) -> Any:
        if is_on(NO_LOOK):
            return {}
        return readiness._check() if is_on(LOOK_EACH_TIME) else run_checks(readiness)

    psycopg.Cursor.execute = rewriting  # type: ignore[method-assign,assignment]  # in this process only, as all of these
    Readiness.run_checks = looking  # type: ignore[method-assign,assignment]
    Payment.refundable_minor = property(  # type: ignore[method-assign,assignment]
        lambda payment: payment.received_minor if is_on(NO_BALANCE) else refundable(payment)
    )

    def signed_by(*args: Any, **kwargs: Any) -> frozenset[str]:
        return frozenset({"v1"}) if is_on(NO_SIGNATURE) else valid_signatures(*args, **kwargs)

    check_link, is_usable = accounts.check_link, LinkRecord.is_usable

    def checked(*args: Any, **kwargs: Any) -> None:
        if not is_on(NO_LINK_CHECK):
            check_link(*args, **kwargs)

    def usable(link: LinkRecord, now: Any) -> bool:
        return is_usable(link._replace(revoked_at=None) if is_on(NO_REVOCATION) else link, now)

    accounts.check_link = checked
    LinkRecord.is_usable = usable  # type: ignore[method-assign,assignment]
    webhooks.valid_signatures = signed_by  # type: ignore[attr-defined]  # where it is looked up

"""Commands about payments, for staff and for the timer that audits them."""

import json
from collections.abc import Iterable
from dataclasses import asdict

import click

from payments_app.commands import Commands
from payments_app.payments import audit

payments = Commands("payments", help="Look after payments.")


@payments.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Each offender as a line of JSON.")
def audit_payments(as_json: bool) -> None:
    """Check every payment against the promises of this service (M1 to M7).

    Each payment that breaks one is a line on standard output, and so is each that needs a review, with the refund to
    make; progress and verdict go to standard error. Exits with 1 if a promise is broken, else with 0.
    """

    def show(found: Iterable[audit.Offender]) -> int:
        count = 0
        for count, offender in enumerate(found, start=1):  # noqa: B007  # the count is what comes back
            if as_json:
                click.echo(json.dumps(asdict(offender)))
            else:
                click.echo(f"{offender.invariant}  payment {offender.payment_id}  {offender.detail}")
        return count

    broken = 0
    for number, check in enumerate(audit.CHECKS, start=1):
        click.echo(f"{number:2} of {len(audit.CHECKS)}  {check.invariant}  {check.promise}", err=True)
        broken += show(audit.find_offenders(check))
    reviews = show(audit.find_reviews())
    verdict = f"{broken} offenders" if broken else "all promises hold"
    click.echo(f"{audit.count_payments()} payments audited: {verdict}; {reviews} to review", err=True)
    raise SystemExit(1 if broken else 0)

"""Commands about payments, for staff and for the timer that audits them."""

import json
from dataclasses import asdict

import click
from flask.cli import AppGroup

from payments_app.payments import audit

payments = AppGroup("payments", help="Look after payments.")


@payments.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Each offender as a line of JSON.")
def audit_payments(as_json: bool) -> None:
    """Check every payment against the promises of this service (M1 to M7).

    Each payment that breaks one is a line on standard output; the verdict goes to standard error. Exits with 1 if
    there is any, else with 0.
    """
    offender_count = 0
    for number, check in enumerate(audit.CHECKS, start=1):
        click.echo(f"{number:2} of {len(audit.CHECKS)}  {check.invariant}  {check.promise}", err=True)
        for offender in audit.find_offenders(check):
            offender_count += 1
            if as_json:
                click.echo(json.dumps(asdict(offender)))
            else:
                click.echo(f"{offender.invariant}  payment {offender.payment_id}  {offender.detail}")
    verdict = f"{offender_count} offenders" if offender_count else "all promises hold"
    click.echo(f"{audit.count_payments()} payments audited: {verdict}", err=True)
    raise SystemExit(1 if offender_count else 0)

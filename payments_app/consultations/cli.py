"""The ``consultations`` commands."""

import click
from flask import current_app

from payments_app import money
from payments_app.accounts.system_user import system_caller
from payments_app.commands import ID, AmountType, CommandFailed, CommandGroup, json_option, show_facts
from payments_app.consultations import repository
from payments_app.consultations.repository import Registration

consultations = CommandGroup("consultations", help="Manage consultations.")


@consultations.command("put")
@click.argument("consultation_id", type=ID)
@click.option("--patient", required=True, help="The patient's e-mail address.")
@click.option("--fee", type=AmountType(), help="Fee, such as 5000 or 5000.50. Default: any amount.")
@json_option
def put_consultation(consultation_id: int, patient: str, fee: int | None, as_json: bool) -> None:
    """Register a consultation, or replace its data."""
    settings = current_app.config["SETTINGS"]
    least, most = settings.payment_min_amount_minor, settings.payment_max_amount_minor
    if fee is not None and not least <= fee <= most:
        raise CommandFailed(f"The fee must be from {money.to_text(least)} to {money.to_text(most)}.")
    registration = Registration(
        patient_id=None, patient_email=patient, fee_minor=fee, currency=settings.payment_currency
    )
    consultation, is_new = repository.put(consultation_id, registration, caller=system_caller())
    facts = {
        "consultation": consultation.id,
        "patient": patient,
        "fee": None if consultation.fee_minor is None else money.to_text(consultation.fee_minor),
        "currency": consultation.currency,
        "is_new": is_new,
    }
    show_facts(facts, as_json=as_json)

"""The ``consultations`` commands."""

from typing import Any

import click
from flask import current_app
from marshmallow import Schema, ValidationError

from payments_app import money
from payments_app.accounts.system_user import system_caller
from payments_app.api.fields import errors_by_field
from payments_app.commands import ID, AmountType, CommandGroup, json_option, show_facts
from payments_app.consultations import repository, schemas
from payments_app.errors import ValidationFailed

consultations = CommandGroup("consultations", help="Manage consultations.")


@consultations.command("put")
@click.argument("consultation_id", type=ID)
@click.option("--patient", required=True, help="The patient's e-mail address.")
@click.option("--name", help="Add the patient under this name if nobody has the e-mail address.")
@click.option("--language", help="Language of a patient who is added, such as en or id.")
@click.option("--fee", type=AmountType(), help="What it costs, such as 5000 or 5000.50; without, any amount.")
@click.option("--description", help="What it is for, as the patient reads it.")
@click.option("--starts-at", help="When it begins, with the zone, such as 2026-03-14T17:30+08:00.")
@click.option("--reference", help="The booking system's own name for it, such as BK-77; once given, it stays.")
@json_option
def put_consultation(
    consultation_id: int,
    *,
    patient: str,
    name: str | None,
    language: str | None,
    fee: int | None,
    description: str | None,
    starts_at: str | None,
    reference: str | None,
    as_json: bool,
) -> None:
    """Register a consultation, or replace what is known of it: an option that is left out empties what it sets.

    A patient who is added has no password and cannot log in.
    """
    if name is None and language is not None:
        raise click.UsageError("--language is for a patient who is added: give --name too.")
    details = {
        "fee": None if fee is None else money.to_text(fee),
        "description": description,
        "starts_at": starts_at,
        "reference": reference,
    }
    named = {"patient_email": patient}
    if name is not None:
        added = {"email": patient, "name": name, "language": language}
        named = {"patient": _loaded(schemas.ConsultationPatient(), added)}
    body = {**_loaded(schemas.ConsultationDetails(), details), **named}
    registration = schemas.registration(body, currency=current_app.config["SETTINGS"].payment_currency)
    consultation, is_new = repository.put(consultation_id, registration, caller=system_caller())
    facts = {
        "consultation": consultation.id,
        "patient": patient,
        "fee": None if consultation.fee_minor is None else money.to_text(consultation.fee_minor),
        "currency": consultation.currency,
        "description": consultation.description,
        "starts_at": consultation.starts_at,
        "reference": consultation.reference,
        "is_new": is_new,
    }
    show_facts(facts, as_json=as_json)


def _loaded(schema: Schema, given: dict[str, Any]) -> Any:
    try:
        return schema.load(given)
    except ValidationError as error:
        raise ValidationFailed(errors_by_field(error.messages_dict)) from None

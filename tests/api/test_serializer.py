"""What is rendered by a plan is what marshmallow would dump by the schema that the plan was made of."""

import json
from datetime import UTC, datetime
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, fields

from payments_app.accounts.system_user import system_caller
from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import Amount, RateField, UtcDateTimeField
from payments_app.api.serializer import renderer, text_renderer
from payments_app.payments import repository, schemas
from payments_app.payments.models.status import PaymentStatus
from tests.support.people import People


@pytest.fixture
def payment_id(people: People) -> int:
    """A payment with one of everything, and two refunds of an amount that is not whole."""
    payment_id: int = people.patient.pay().json["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    for amount in ("1000.50", "1000.25"):
        assert people.admin.post(f"/payments/{payment_id}/refund", {"amount": amount}).status_code == 200
    return payment_id


def test_a_payment_is_shown_as_its_schema_dumps_it(app: Flask, people: People, payment_id: int) -> None:
    with app.app_context():
        dumped = schemas.PaymentDetails().dump(repository.get(payment_id, caller=system_caller()))

    assert people.patient.get(f"/payments/{payment_id}").json["data"] == json.loads(json.dumps(dumped))
    assert len(dumped["refunds"]) == 2


def test_a_list_shows_payments_as_their_schema_dumps_them(app: Flask, people: People, payment_id: int) -> None:
    with app.app_context():
        dumped = schemas.Payment().dump(repository.get(payment_id, caller=system_caller()))

    assert people.patient.get("/payments").json["data"] == [json.loads(json.dumps(dumped))]


def test_dicts_are_rendered_as_objects_are() -> None:
    class Inner(Schema):
        name = fields.String()

    class Outer(Schema):
        inner = fields.List(fields.Nested(Inner))
        words = fields.List(fields.String())
        renamed = fields.Integer(attribute="number")

    row = {"inner": [{"name": "a"}, {"name": "b"}], "words": ["x"], "number": 7}

    assert renderer(Outer(), itemgetter)(row) == Outer().dump(row)


class Inner(Schema):
    name = fields.String()


class Everything(Schema):
    id = fields.Integer(required=True)
    number = fields.Integer(allow_none=True)
    text = fields.String(allow_none=True)
    status = EnumField(Enumeration.of(PaymentStatus))
    yes = fields.Boolean(attribute="is_so")
    amount = Amount(attribute="amount_minor", allow_none=True)
    rate = RateField()
    at = UtcDateTimeField(allow_none=True)
    inner = fields.Nested(Inner, allow_none=True)
    inners = fields.List(fields.Nested(Inner))
    words = fields.List(fields.String())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"text": None, "amount_minor": None, "at": None, "inner": None, "number": None},
        {"text": 'He said "100 %s", and \\ left.\u2028', "is_so": False, "words": ["\U0001f642", "%"]},
        {"amount_minor": 1, "number": -(2**63), "inners": []},
        {"amount_minor": 99_999_999_999_999, "status": PaymentStatus.REFUNDED},
    ],
)
def test_the_text_of_a_row_is_that_of_its_dict(changed: dict[str, Any]) -> None:
    row = {
        "id": 7,
        "number": 0,
        "text": "Klinik Sehat",
        "status": "pending",
        "is_so": True,
        "amount_minor": 500_050,
        "rate": 1200,
        "at": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
        "inner": SimpleNamespace(name="a"),
        "inners": [SimpleNamespace(name="b"), SimpleNamespace(name="c")],
        "words": ["x"],
        **changed,
    }

    assert text_renderer(Everything())(SimpleNamespace(**row)) == json.dumps(Everything().dump(SimpleNamespace(**row)))

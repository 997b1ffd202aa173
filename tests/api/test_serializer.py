"""What is rendered by a plan is what marshmallow would dump by the schema that the plan was made of."""

import json
from operator import itemgetter

import pytest
from flask import Flask
from marshmallow import Schema, fields

from payments_app.accounts.system_user import system_caller
from payments_app.api.serializer import renderer
from payments_app.payments import repository, schemas
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

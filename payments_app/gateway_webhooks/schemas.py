"""Shape of what a gateway is answered."""

from marshmallow import Schema, fields


class Received(Schema):
    received = fields.Boolean(required=True)

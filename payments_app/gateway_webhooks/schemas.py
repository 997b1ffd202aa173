"""Schema of the response to a webhook."""

from marshmallow import Schema, fields


class Received(Schema):
    received = fields.Boolean(required=True)

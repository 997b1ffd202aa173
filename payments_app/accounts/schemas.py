"""Shapes of login and of a user."""

from marshmallow import Schema, fields

from payments_app.api.fields import StorableString

ANY_SPELLING = (
    "In any spelling: case, composed or decomposed characters, and a domain in Unicode or ASCII are the same."
)


class Login(Schema):
    email = StorableString(
        required=True,
        min_length=1,
        max_length=254,
        metadata={"example": "patient@test.com", "description": ANY_SPELLING},
    )
    # argon2 takes any length; the limit keeps a hostile one from costing anything.
    password = StorableString(required=True, min_length=1, max_length=1024, metadata={"example": "password"})


class Token(Schema):
    token = fields.String(required=True)
    token_type = fields.String(required=True, metadata={"enum": ["Bearer"]})
    expires_in = fields.Integer(required=True, metadata={"description": "seconds"})


class User(Schema):
    id = fields.Integer(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True)
    role = fields.String(required=True, metadata={"enum": ["patient", "admin", "booking", "payer"]})

"""Schemas of login and of a user."""

from marshmallow import Schema, fields

from payments_app.accounts.models import Role
from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import StorableString

ROLE = Enumeration.of(Role)

ANY_SPELLING = (
    "All spellings of one address are the same: upper or lower case, composed or decomposed characters, and the"
    " domain in Unicode or ASCII."
)


class Login(Schema):
    email = StorableString(
        required=True,
        min_length=1,
        max_length=254,
        metadata={"example": "patient@test.com", "description": ANY_SPELLING},
    )
    # argon2 accepts any length; the limit prevents that a huge password costs time.
    password = StorableString(required=True, min_length=1, max_length=1024, metadata={"example": "password"})


class Token(Schema):
    token = fields.String(required=True)
    token_type = fields.String(required=True, metadata={"enum": ["Bearer"]})
    expires_in = fields.Integer(required=True, metadata={"description": "seconds"})


class User(Schema):
    id = fields.Integer(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True)
    role = EnumField(ROLE, required=True)

"""Strict query parameters under /api/v1: if a misspelt filter were ignored, the response would show all payments.

A schema of parameters is a ``Query``. An endpoint without one either has a JSON body, whose parser refuses parameters,
or uses ``@blueprint.without_parameters``. Webhooks of gateways do neither, and ignore parameters.
"""

from collections.abc import Iterable
from typing import Any

from flask import Request
from marshmallow import Schema
from werkzeug.datastructures import MultiDict

from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_, LocalizedMessage


class Query(Schema):
    """The parameters of an endpoint. The error for an unknown parameter lists them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error_messages["unknown"] = _unknown(self.fields)


def refuse_parameters(request: Request) -> None:
    """Refuse all query parameters.

    Raises:
        ValidationFailed: the request has one (422).
    """
    if request.query_string and request.args:
        raise ValidationFailed({name: [_unknown(())] for name in request.args})


def refuse_contradictions(parameters: MultiDict[str, str]) -> None:
    """Refuse a query parameter or form field with several different values: it is unclear which one is meant.

    Raises:
        ValidationFailed: a name has different values (422).
    """
    contradicting = [name for name, values in parameters.lists() if len(set(values)) > 1]
    if contradicting:
        text = N_("Was given more than once, with different values.")
        raise ValidationFailed({name: [text] for name in contradicting})


def _unknown(known: Iterable[str]) -> str:
    names = ", ".join(known)
    if not names:
        return N_("Unknown parameter; there are none here.")
    return LocalizedMessage("Unknown parameter; known are: %(known)s.", known=names)

"""Query parameters under /api/v1, read strictly: an unknown filter that is ignored would show everybody's payments.

A schema of parameters is a ``Query``. An endpoint without one is either given a JSON body, whose parser refuses
parameters, or says ``@blueprint.without_parameters``. Gateways' webhooks say neither, and ignore them.
"""

from collections.abc import Iterable
from typing import Any

from flask import Request
from marshmallow import Schema
from werkzeug.datastructures import MultiDict

from payments_app.errors import ValidationFailed
from payments_app.i18n.messages import N_, LocalizedMessage


class Query(Schema):
    """The parameters that an endpoint takes. The error for any other one names them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error_messages["unknown"] = _unknown(self.fields)


def refuse_parameters(request: Request) -> None:
    """For an endpoint that takes no parameters.

    Raises:
        ValidationFailed: there is one (422).
    """
    if request.query_string and request.args:
        raise ValidationFailed({name: [_unknown(())] for name in request.args})


def refuse_contradictions(given: MultiDict[str, str]) -> None:
    """Of a parameter, or of a field in a form, that has several values, it cannot be told which one is meant.

    Raises:
        ValidationFailed: one was given twice, with different values (422).
    """
    contradicting = [name for name, values in given.lists() if len(set(values)) > 1]
    if contradicting:
        text = N_("Was given more than once, with different values.")
        raise ValidationFailed({name: [text] for name in contradicting})


def _unknown(known: Iterable[str]) -> str:
    names = ", ".join(known)
    if not names:
        return N_("Unknown parameter; there are none here.")
    return LocalizedMessage("Unknown parameter; known are: %(known)s.", known=names)

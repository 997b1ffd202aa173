"""The class of every JSON response."""

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class JsonResponse(Response):
    """A response whose headers are complete: with a length, and with a ``Location`` that is quoted already.

    Werkzeug copies the headers of a response and checks each of them before they are sent: a twentieth of the calls of
    a create.
    """

    default_mimetype = "application/json"

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        if self.status_code == HTTPStatus.NOT_MODIFIED:  # without those that describe a body
            return super().get_wsgi_headers(environ)
        return self.headers

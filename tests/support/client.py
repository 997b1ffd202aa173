"""Flask's test client, whose responses have a body that type checkers let tests look into."""

from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse


class ApiResponse(TestResponse):
    """A response; ``json`` is Any, and not ``Any | None`` as Werkzeug says: a test that expects JSON indexes it."""

    @property
    def json(self) -> Any:
        """The body as JSON; None if the response is of another media type."""
        return super().json


class ApiClient(FlaskClient):
    """Sends requests to an app in this process."""

    def open(self, *args: Any, **kwargs: Any) -> ApiResponse:
        response = super().open(*args, **kwargs)
        assert isinstance(response, ApiResponse)
        return response

    def get(self, *args: Any, **kwargs: Any) -> ApiResponse:
        return self.open(*args, method="GET", **kwargs)

    def post(self, *args: Any, **kwargs: Any) -> ApiResponse:
        return self.open(*args, method="POST", **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> ApiResponse:
        return self.open(*args, method="DELETE", **kwargs)


def client_of(app: Flask) -> ApiClient:
    return ApiClient(app, ApiResponse, use_cookies=True)

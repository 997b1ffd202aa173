"""What browsers are told with every answer, wherever it came from: our pages say more, and nothing says less."""

from flask import Flask, Response

HEADERS = {
    # An answer that is no page of ours runs nothing, and stands in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def init_app(app: Flask) -> None:
    app.after_request(_tell)


def _tell(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response

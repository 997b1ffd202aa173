"""Default security headers of every response; a page may set its own."""

from flask import Flask, Response

HEADERS = {
    # A response that is not a page loads nothing and cannot be framed.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page_policy(*, images: str = "'self'", forms: str = "'none'") -> str:
    """The Content-Security-Policy of an HTML page: only this service's own files, no inline scripts.

    ``forms``: the targets of forms. With ``'none'``, the browser cannot submit a form if the script does not run, and
    so not put a password into a URL.
    """
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        f"base-uri 'none'; form-action {forms}; frame-ancestors 'none'"
    )


def init_app(app: Flask) -> None:
    app.after_request(_set_headers)


def _set_headers(response: Response) -> Response:
    existing = {name.lower() for name, _ in response.headers}
    for name, value in HEADERS.items():
        if name.lower() not in existing:
            response.headers.add(name, value)
    return response

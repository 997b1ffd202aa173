"""The headers of every response: security, no caching, the request's id, and its idempotency key if it has one.

They are set in one place, because each function that Flask calls after a request costs a percent of a GET.
"""

from flask import Flask, Response, g, request

from payments_app.observability.logging import current_request_id

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
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    headers = {**HEADERS, "X-Request-ID": current_request_id()}
    if request.path.startswith("/api/"):
        # Personal, and may change at any time: no cache may store it, unless a view allows it.
        headers["Cache-Control"] = "no-store"
    headers["Idempotency-Key"] = g.get("idempotency_key")
    set_by_view = {name.lower() for name, _ in response.headers}
    for name, value in headers.items():
        if value is not None and name.lower() not in set_by_view:
            response.headers.add(name, value)
    return response

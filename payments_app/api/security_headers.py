"""Default security headers of every response; a page may set its own."""

from flask import Flask, Response

HEADERS = {
    # An answer that is no page of ours runs nothing, and stands in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page_policy(*, images: str = "'self'") -> str:
    """The policy of a page of ours: nothing but what this service sends itself, and no script in the page.

    Browsers send no form by themselves: where the script does not run, no password ends up in an address.
    """
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def init_app(app: Flask) -> None:
    app.after_request(_set_headers)


def _set_headers(response: Response) -> Response:
    theirs = {name.lower() for name, _ in response.headers}
    for name, value in HEADERS.items():
        if name.lower() not in theirs:
            response.headers.add(name, value)
    return response

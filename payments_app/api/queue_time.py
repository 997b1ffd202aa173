"""Refuses requests that waited too long for a thread: the proxy would give up before they are done.

nginx writes in ``X-Request-Start`` when it passed the request on (deploy/nginx): ``t=`` and seconds since 1970 with
milliseconds. Its clock must be this machine's. The header is read only behind trusted proxies (``TRUSTED_PROXIES``),
which overwrite a client's.
"""

import re

from flask import Flask, request

from payments_app import clock
from payments_app.errors import Overloaded
from payments_app.observability import metrics

# Seconds. nginx waits 60 s for a response, and the longest request, which calls a gateway, takes 41.5 s: after a longer
# wait its response could come too late. Requests that are not refused wait a second or two in a burst, and 6 s for a
# locked row.
LONGEST_WAIT_SECONDS = 15

# Seconds. Nothing waits that long: the header is wrong, and is ignored.
NOT_BELIEVED_SECONDS = 3600

_HEADER = re.compile(r"t=([0-9]{10}\.[0-9]{3})")


def init_app(app: Flask) -> None:
    if app.config["SETTINGS"].trusted_proxies:
        app.before_request(_refuse_late)


def _refuse_late() -> None:
    written = _HEADER.fullmatch(request.headers.get("X-Request-Start", ""))
    if written is None:
        return
    waited_seconds = clock.now().timestamp() - float(written[1])
    if not 0 <= waited_seconds < NOT_BELIEVED_SECONDS:
        return
    metrics.QUEUE_SECONDS.observe(waited_seconds)
    if waited_seconds > LONGEST_WAIT_SECONDS:
        metrics.QUEUE_REFUSALS.inc()
        raise Overloaded

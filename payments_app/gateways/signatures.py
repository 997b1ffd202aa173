"""Signatures of webhooks, as several gateways make them: ``t=<seconds>,<name>=<hex>,...`` in one header.

Each value is the HMAC-SHA256 of ``<t>.<body>`` with a secret that the gateway and we share.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime

# Seconds between the signing and the arrival: the tolerance of the gateways' own libraries. Each delivery is signed
# anew, so a longer one would only help somebody who sends a recorded delivery again.
TOLERANCE_SECONDS = 300

# Seconds since 1970.
_SECONDS = re.compile(r"[0-9]{1,12}")


def valid_signatures(header: str | None, body: bytes, secrets: Sequence[str], *, at: datetime) -> frozenset[str]:
    """The names of the signatures that one of the secrets made of this body, within 300 seconds of ``at``.

    The body is bytes, because a body that is no UTF-8 can be signed too.
    """
    elements = [element.strip().partition("=") for element in (header or "").split(",")]
    times = [value for name, _, value in elements if name == "t"]
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):  # of several, some take the first, and others the last
        return frozenset()
    if int(times[0]) < at.timestamp() - TOLERANCE_SECONDS:
        return frozenset()
    signed = times[0].encode() + b"." + body
    wanted = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    # Every value is compared with every secret, so that the time it takes says nothing of them.
    return frozenset(
        name
        for name, _, value in elements
        if any([hmac.compare_digest(value.encode(errors="replace"), expected) for expected in wanted])  # noqa: C419
    )

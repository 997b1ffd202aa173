"""One call of PayMongo's API over HTTP: limited in time and in size, and sent to no other host than the setting names.

Each call has a connection of its own. A kept one may be closed by the other side in the moment in which it is used
again; a refund that is lost that way would be left to staff, because PayMongo may not remember gateway keys.
"""

import json
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from threading import Timer
from time import monotonic
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from payments_app.gateways.admission import Admission
from payments_app.gateways.untrusted import members_of, parsed

# A page of 100 refunds has about 100 KiB.
MOST_BYTES = 1024 * 1024

# Read, understood, and refused for good. A refusal of our key (401, 403), of the moment (408, 409, 429) or by a server
# that failed (5xx) does not say that an earlier call had no effect.
_REFUSALS = frozenset({400, 402, 404, 422})

# No connection, or no whole answer before the deadline.
_SILENCE = (requests.RequestException, HTTPError, OSError)

# What a patient or staff are shown of a refusal.
_LONGEST_DETAIL = 200
_DEFAULT_DETAIL = "The gateway refused it."


class Refused(Exception):
    """PayMongo understood the call and refused it: it had no effect and will have none. The text may be shown."""

    def __init__(self, detail: str, at: datetime | None, status: int) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.at = at


class NoAnswer(Exception):
    """No answer, or none that says whether the call had an effect. The text is for the log and has no secret."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status

    @property
    def is_success(self) -> bool:
        """Whether the call was performed, and only its answer cannot be read."""
        return self.status is not None and self.status in range(200, 300)


@dataclass(frozen=True, slots=True)
class Response:
    """A successful answer: the members of its JSON object, and the server's clock to the second if it says it."""

    members: Mapping[str, Any]
    at: datetime | None


class Transport:
    """Calls of one account. A call ends within ``timeout_seconds``, however slowly the other side answers.

    Looking the host's name up comes on top of that: the system's resolver has limits of its own.
    """

    def __init__(self, api_key: str, *, api_base: str, timeout_seconds: float, admission: Admission) -> None:
        self._admission = admission
        self._api_key = api_key
        self._api_base = api_base
        self._timeout_seconds = timeout_seconds

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Response:
        """Read something.

        Raises:
            Refused: the answer is 400, 402, 404 or 422, with PayMongo's errors.
            NoAnswer: everything else that is no success.
            GatewayUnavailable, GatewayBusy: the caller has no place, and there is none.
        """
        return self._call("GET", path, params=dict(params or {}))

    def post(
        self, path: str, attributes: Mapping[str, Any] | None = None, *, gateway_key: str | None = None
    ) -> Response:
        """Change something; the same attributes are the same bytes. Raises what ``get`` raises."""
        headers = {} if gateway_key is None else {"Idempotency-Key": gateway_key}
        if attributes is None:
            return self._call("POST", path, headers=headers)
        body = json.dumps({"data": {"attributes": attributes}}).encode()
        return self._call("POST", path, data=body, headers={**headers, "Content-Type": "application/json"})

    def _call(self, method: str, path: str, **sent: Any) -> Response:
        try:
            with self._admission.call(*_SILENCE):
                answer, body = self._answered(method, path, **sent)
        except _SILENCE as error:
            raise NoAnswer(type(error).__name__) from None
        return self._judged(answer, parsed(body) if len(body) <= MOST_BYTES else {})

    def _answered(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **sent: Any
    ) -> tuple[requests.Response, bytes]:
        deadline = monotonic() + self._timeout_seconds
        with ExitStack() as ends:
            session = ends.enter_context(requests.Session())
            session.trust_env = False  # no proxy, no .netrc, no certificates that the environment names
            session.mount(self._api_base, _DeadlineAdapter(deadline, ends))
            answer = session.request(
                method,
                f"{self._api_base}{path}",
                auth=(self._api_key, ""),
                headers={"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})},
                # A server that is there is reached in much less; the deadline ends the rest.
                timeout=(self._timeout_seconds / 4, self._timeout_seconds),
                allow_redirects=False,
                stream=True,
                **sent,
            )
            ends.callback(answer.close)
            # As it was sent: what is packed in spite of Accept-Encoding could be of any size.
            return answer, answer.raw.read(MOST_BYTES + 1, decode_content=False)

    def _judged(self, answer: requests.Response, members: Mapping[str, Any]) -> Response:
        status = answer.status_code
        errors = members.get("errors")
        if status in _REFUSALS and isinstance(errors, list) and errors:
            raise self._refusal(members_of(errors[0]), answer)
        if status not in (200, 201):
            raise NoAnswer(f"HTTP status {status}", status)
        if not members:
            raise NoAnswer("an answer that is no JSON object, or a very large one", status)
        return Response(members, _date_of(answer.headers))

    def _refusal(self, error: Mapping[str, Any], answer: requests.Response) -> Refused | NoAnswer:
        if "idempot" in str(error.get("code")).lower():
            # It is about the gateway key, and so about an earlier call: that one may have had an effect.
            return NoAnswer(f"HTTP status {answer.status_code}: the gateway key is refused", answer.status_code)
        detail = str(error.get("detail") or "").replace(self._api_key, "***")
        shown = re.sub(r"[^\x20-\x7e]+", " ", detail).strip()[:_LONGEST_DETAIL]
        return Refused(shown or _DEFAULT_DETAIL, _date_of(answer.headers), answer.status_code)


class _DeadlineAdapter(HTTPAdapter):
    """Ends the connections that it opens at the deadline: the library's timeouts begin anew with every byte."""

    def __init__(self, deadline: float, ends: ExitStack) -> None:
        super().__init__()
        self._deadline = deadline
        self._ends = ends

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        watch = self._watch

        class Watched(pool.ConnectionCls):  # type: ignore[name-defined,misc]  # plain or TLS, as the address says
            def _new_conn(self) -> socket.socket:
                connected: socket.socket = super()._new_conn()
                watch(connected)
                return connected

        pool.ConnectionCls = Watched
        return pool

    def _watch(self, connected: socket.socket) -> None:
        connection = connected.dup()  # TLS takes the socket itself over
        self._ends.callback(connection.close)
        timer = Timer(max(0.0, self._deadline - monotonic()), _hang_up, [connection])
        timer.daemon = True
        timer.start()
        self._ends.callback(timer.join)
        self._ends.callback(timer.cancel)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _date_of(headers: Mapping[str, str]) -> datetime | None:
    """What the header Date says: when the answer was made (RFC 9110, 6.6.1)."""
    try:
        return parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None

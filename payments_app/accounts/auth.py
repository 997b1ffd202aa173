"""Bearer tokens: signed JWTs (RFC 7519, HS256) that name a user, their role and their token version."""

import functools
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import SessionInterface
from flask_jwt_extended import JWTManager, create_access_token, decode_token

from payments_app.accounts import repository
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import USER_ROLES, Role
from payments_app.accounts.repository import Credentials
from payments_app.api.problems import problem_response
from payments_app.errors import Forbidden, NotAuthenticated
from payments_app.extensions import jwt

R = TypeVar("R")

SCHEME = "Bearer"  # RFC 6750

# Of a token that was verified, a process remembers what it says: to decode it takes a fifth of a create's time. So many
# are of those who come again soon, at about 1 KiB each; who is forgotten is verified anew.
REMEMBERED = 4_096

# Seconds that the clocks of two of our servers may be apart. A token is good from the second in which it was issued, so
# a server whose clock is behind by less than one would refuse a token that another has just given. NTP keeps clocks
# closer than a second, and `check` warns from 5 on; 30 let everybody work until that was read. RFC 7519 (4.1.4) allows
# "some small leeway, usually no more than a few minutes"; a token lives so much longer.
CLOCK_LEEWAY_SECONDS = 30

# For so long a payer's token is valid: the page that has the link exchanges it again.
PAYER_TOKEN_TTL_SECONDS = 900

_STAFF = frozenset([Role.ADMIN, Role.BOOKING])

# Methods of requests that change nothing.
_READING = frozenset(["GET", "HEAD"])


# A scheme has no case, and any number of blanks may follow it (RFC 9110, 11.1 and 11.4); a token has none of them.
_CREDENTIALS = re.compile(r"bearer[ \t]+([^\s,]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Verified:
    """``expires_at``: seconds since 1970, as the token says, and the leeway."""

    caller: Caller
    expires_at: float


def init_app(app: Flask) -> None:
    """Answer every bad token with the same 401, where the library would say 422 to some."""
    app.config["JWT_DECODE_LEEWAY"] = CLOCK_LEEWAY_SECONDS  # for nbf, iat and exp alike
    jwt.init_app(app)
    _answer_bad_tokens(jwt)
    app.session_interface = _NoSessions()
    app.extensions["verified_tokens"] = functools.lru_cache(REMEMBERED)(_verify)


class _NoSessions(SessionInterface):
    """Flask would look into every request for a session's cookie: here a token says all."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


def _answer_bad_tokens(manager: JWTManager) -> None:
    def refuse(*_details: Any) -> Response:
        return problem_response(NotAuthenticated())

    manager.invalid_token_loader(refuse)
    manager.expired_token_loader(refuse)


def issue(user: Credentials) -> str:
    """A token for a user whose password was just checked; valid for ``ACCESS_TOKEN_TTL``."""
    claims = {"role": user.role, "ver": user.token_version}
    token: str = create_access_token(str(user.user_id), additional_claims=claims)
    return token


def issue_for_link(*, link_id: int, consultation_id: int, return_url: str | None, patient_id: int, version: int) -> str:
    """A token for whoever has a payment link; valid for ``PAYER_TOKEN_TTL_SECONDS``.

    ``return_url`` is for the page that shows the payment, and nothing here reads it again.
    """
    claims = {
        "role": Role.PAYER,
        "ver": version,
        "link": link_id,
        "consultation": consultation_id,
        "return_url": return_url,
    }
    ttl = timedelta(seconds=PAYER_TOKEN_TTL_SECONDS)
    token: str = create_access_token(str(patient_id), additional_claims=claims, expires_delta=ttl)
    return token


def authenticated(*roles: Role) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give the view its ``caller``, who must have one of ``roles`` (any role of a user, if none is named).

    Staff's powers reach beyond their own rows, so their role is read from the database each time; so are a payer's
    link and its patient. A patient is checked with the database by the transaction of every write.

    Raises:
        NotAuthenticated: no token, or a bad one (401).
        Forbidden: another role, or a change by a link that has expired (403).
    """
    allowed = roles or USER_ROLES

    def decorate(view: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            caller = _read_token()
            g.caller = caller  # for the rate limits and the log, which know no arguments
            if caller.role == Role.PAYER:  # before its role: a link that was revoked learns nothing
                repository.check_link(caller, changes=request.method not in _READING)
            if caller.role not in allowed:
                raise Forbidden
            if caller.role in _STAFF:
                repository.check_valid(caller)
            return view(*args, caller=caller, **kwargs)

        wrapper.roles = frozenset(allowed)  # type: ignore[attr-defined]  # for the table of docs/roles.md
        return wrapper

    return decorate


def _read_token() -> Caller:
    """Whose token came with the request. A signature that was good once stays so; that time runs out has to be seen."""
    header = request.headers.get("Authorization", "")
    verified: _Verified = current_app.extensions["verified_tokens"](header)
    if verified.expires_at <= time.time():
        verified = _verify(header)  # says no, as to any other that has expired
    return verified.caller


def _verify(header: str) -> _Verified:
    """What the token in this request's header says. Of one that is refused nothing is remembered: this raises.

    Raises:
        NotAuthenticated: no token, or one that is signed with our key and is none of our access tokens (401).
        The library's errors, each answered as 401: a bad token.
    """
    # Read here: the library asks for the scheme in one spelling and one blank after it, and of two header lines that
    # were joined by a comma it believes the one that it knows.
    credentials = _CREDENTIALS.fullmatch(header)
    claims = decode_token(credentials[1]) if credentials else {}
    if claims.get("type") != "access":
        raise NotAuthenticated
    return _Verified(Caller.from_claims(claims), expires_at=claims.get("exp", math.inf) + CLOCK_LEEWAY_SECONDS)

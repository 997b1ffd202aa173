"""Authentication by bearer token or API key, and checks of roles and scopes.

A token is a signed JWT (RFC 7519, HS256) with the user's id, role and token version. An API key is looked up in the
database at every request.
"""

import functools
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import SessionInterface
from flask_jwt_extended import JWTManager, create_access_token, decode_token

from payments_app.accounts import api_keys, key_format, repository
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import STAFF, USER_ROLES, Role, Scope
from payments_app.accounts.repository import Credentials
from payments_app.api.problems import problem_response
from payments_app.api.rate_limits import requests_per_key
from payments_app.errors import Forbidden, NotAuthenticated
from payments_app.extensions import jwt

R = TypeVar("R")

SCHEME = "Bearer"  # RFC 6750

# Each process caches the claims of so many verified tokens, at about 1 KiB each: decoding a token takes a fifth of the
# time of a create. A token that is no longer in the cache is verified again.
VERIFIED_TOKENS_CACHE_SIZE = 4_096

# Seconds that the clocks of two of our servers may differ. A token is valid from the second in which it was issued, so
# a server whose clock is slightly behind would refuse a token that another server has just issued. NTP keeps clocks
# within a second, and `check` warns from 5 seconds on; with 30, users can go on working until an operator reads the
# warning. RFC 7519 (4.1.4) allows "some small leeway, usually no more than a few minutes"; a token is valid for that
# much longer.
CLOCK_LEEWAY_SECONDS = 30

# For so long a payer's token is valid: the page that has the link exchanges it again.
PAYER_TOKEN_TTL_SECONDS = 900


class AnyScope(Enum):
    """In place of a scope: every API key may do this."""

    ANY = "any"


# Methods of requests that change nothing.
_READING = frozenset(["GET", "HEAD"])


# The scheme is case-insensitive, and several spaces may follow it (RFC 9110, 11.1 and 11.4). A token has no spaces.
_CREDENTIALS = re.compile(r"bearer[ \t]+([^\s,]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Verified:
    """``expires_at``: seconds since 1970: the token's own time plus the leeway."""

    caller: Caller
    expires_at: float


def init_app(app: Flask) -> None:
    """Set up token checks. Every bad token is 401; the library's default for some of them is 422."""
    app.config["JWT_DECODE_LEEWAY"] = CLOCK_LEEWAY_SECONDS  # for nbf, iat and exp alike
    jwt.init_app(app)
    _refuse_bad_tokens(jwt)
    app.session_interface = _NoSessions()
    app.extensions["verified_tokens"] = functools.lru_cache(VERIFIED_TOKENS_CACHE_SIZE)(_verify)


class _NoSessions(SessionInterface):
    """No session cookies: a token is the only credential, so Flask need not look for a cookie in each request."""

    def open_session(self, app: Flask, request: Request) -> None:
        return None


def _refuse_bad_tokens(manager: JWTManager) -> None:
    def refuse(*_details: Any) -> Response:
        return problem_response(NotAuthenticated())

    manager.invalid_token_loader(refuse)
    manager.expired_token_loader(refuse)


def issue(user: Credentials) -> str:
    """Issue a token for a user; valid for ``ACCESS_TOKEN_TTL`` seconds. The caller has checked who the user is."""
    claims = {"role": user.role, "ver": user.token_version}
    token: str = create_access_token(str(user.user_id), additional_claims=claims)
    return token


def issue_for_link(
    *, link_id: int, consultation_id: int, return_url: str | None, read_only: bool, patient_id: int, version: int
) -> str:
    """A token for whoever has a payment link; valid for ``PAYER_TOKEN_TTL_SECONDS``.

    ``return_url`` and ``read_only`` are for the page that shows the payment, and nothing here reads them again.
    """
    claims = {
        "role": Role.PAYER,
        "ver": version,
        "link": link_id,
        "consultation": consultation_id,
        "return_url": return_url,
        "read_only": read_only,
    }
    ttl = timedelta(seconds=PAYER_TOKEN_TTL_SECONDS)
    token: str = create_access_token(str(patient_id), additional_claims=claims, expires_delta=ttl)
    return token


def authenticated(
    *roles: Role, scope: Scope | AnyScope | None, only_reads: bool = False, view_compares_user: bool = False
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Pass the authenticated ``caller`` to the view; require one of ``roles``, or any role of a user if none is given.

    ``scope``: what an API key needs; None if no API key may do this.

    ``only_reads``: the view has no effect of its own, whatever its method, so that a link that has expired may call it.

    ``view_compares_user``: a statement of the view compares the caller's user with the database before it shows or
    changes anything, so that this need not send one more.

    The role of staff is read from the database for each request, because staff may see and change everybody's rows; so
    are a payer's link and its patient. The role of a patient is checked by the transaction of each write.

    Raises:
        NotAuthenticated: no token, or a bad one (401).
        Forbidden: another role, or a change by a link that has expired (403).
    """
    allowed = roles or USER_ROLES

    def decorate(view: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            caller = _read_token()
            g.caller = caller  # for the rate limits and the log, which do not get the view's arguments
            if caller.role == Role.PAYER:  # before its role: a link that was revoked learns nothing
                repository.check_link(caller, changes=not only_reads and request.method not in _READING)
            if caller.role not in allowed:
                raise Forbidden
            if caller.key_id is not None:  # its user was read with it
                _count_request_of_key()
                if scope is not AnyScope.ANY:
                    caller.require_scope(scope)
            elif caller.role in STAFF and not view_compares_user:
                repository.check_valid(caller)
            return view(*args, caller=caller, **kwargs)

        wrapper.roles = frozenset(allowed)  # type: ignore[attr-defined]  # for the table of docs/roles.md
        wrapper.scope = scope  # type: ignore[attr-defined]  # the same
        return wrapper

    return decorate


@requests_per_key
def _count_request_of_key() -> None:
    """Raises:
    RateLimitExceeded: too many requests with this key (429).
    """


def _read_token() -> Caller:
    """The caller whom the request's token or API key names. Of a token that was verified before only the expiry is
    checked again: a valid signature stays valid.
    """
    header = request.headers.get("Authorization", "")
    if key_format.PREFIX in header:  # which a token may contain too
        credentials = _CREDENTIALS.fullmatch(header)
        if credentials and credentials[1].startswith(key_format.PREFIX):
            return api_keys.authenticate(credentials[1])
    verified: _Verified = current_app.extensions["verified_tokens"](header)
    if verified.expires_at <= time.time():
        verified = _verify(header)  # raises: it has expired
    return verified.caller


def _verify(header: str) -> _Verified:
    """Verify the token in an Authorization header. An invalid token raises, so it is not cached.

    Raises:
        NotAuthenticated: no token, or a token signed with our key that is not an access token (401).
        The library's own errors for a bad token; their handlers respond with 401.
    """
    # The header is parsed here, not by the library: the library accepts the scheme in one spelling with one space only,
    # and if two header lines were joined by a comma, it takes the one that it understands.
    credentials = _CREDENTIALS.fullmatch(header)
    claims = decode_token(credentials[1]) if credentials else {}
    if claims.get("type") != "access":
        raise NotAuthenticated
    return _Verified(Caller.from_claims(claims), expires_at=claims.get("exp", math.inf) + CLOCK_LEEWAY_SECONDS)

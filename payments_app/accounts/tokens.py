"""Bearer tokens: signed JWTs (RFC 7519, HS256) that name a user, their role and their token version."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, Response, g
from flask_jwt_extended import JWTManager, create_access_token, get_jwt, verify_jwt_in_request

from payments_app.accounts import repository
from payments_app.accounts.callers import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.repository import Credentials
from payments_app.errors import Forbidden, NotAuthenticated
from payments_app.extensions import jwt
from payments_app.problems import problem_response

R = TypeVar("R")


def init_app(app: Flask) -> None:
    """Answer every bad token with the same 401, where the library would say 422 to some."""
    jwt.init_app(app)
    _answer_bad_tokens(jwt)


def _answer_bad_tokens(manager: JWTManager) -> None:
    def refuse(*_details: Any) -> Response:
        return problem_response(NotAuthenticated())

    manager.unauthorized_loader(refuse)
    manager.invalid_token_loader(refuse)
    manager.expired_token_loader(refuse)


def issue(user: Credentials) -> str:
    """A token for a user whose password was just checked; valid for ``ACCESS_TOKEN_TTL``."""
    claims = {"role": user.role, "ver": user.token_version}
    token: str = create_access_token(str(user.user_id), additional_claims=claims)
    return token


def authenticated(*roles: Role) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give the view its ``caller``, who must have one of ``roles`` (any role where none is named).

    Staff's powers reach beyond their own rows, so their role is read from the database each time; a patient's is
    checked with the database by the transaction of every write.

    Raises:
        NotAuthenticated: no token, or a bad one (401).
        Forbidden: another role (403).
    """

    def decorate(view: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> R:
            verify_jwt_in_request()
            caller = Caller.from_claims(get_jwt())
            g.caller = caller  # for the rate limits and the log, which know no arguments
            if roles and caller.role not in roles:
                raise Forbidden
            if caller.role != Role.PATIENT:
                repository.require_current(caller)
            return view(*args, caller=caller, **kwargs)

        return wrapper

    return decorate

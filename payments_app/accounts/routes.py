"""Logging in, and who one is."""

from flask import Response, current_app

from payments_app.accounts import passwords, repository, schemas, tokens
from payments_app.accounts.callers import Caller
from payments_app.accounts.tokens import authenticated
from payments_app.api.blueprint import Blueprint, json_answer, success
from payments_app.errors import InvalidCredentials

login_blueprint = Blueprint("login", __name__, url_prefix="/api", description="Getting a bearer token")
blueprint = Blueprint("accounts", __name__, url_prefix="/api/v1", description="The caller")


@login_blueprint.route("/login", methods=["POST"])
@login_blueprint.arguments(schemas.Login, location="json_or_form")
@login_blueprint.response(200, schemas.Token)
@login_blueprint.doc(security=[])
@login_blueprint.problems(400, 401, 413, 415, 422, 503)
def login(body: dict[str, str]) -> Response:
    """Exchange an e-mail address and a password, as JSON or as a form, for a bearer token."""
    credentials = repository.find_credentials(body["email"])
    # The password is checked in every case, and before anything is decided: all refusals cost the same.
    correct = passwords.is_correct(body["password"], credentials.password_hash if credentials else None)
    if credentials is None or not correct or credentials.disabled:
        raise InvalidCredentials
    ttl_seconds = current_app.config["SETTINGS"].access_token_ttl_seconds
    return json_answer({"token": tokens.issue(credentials), "token_type": "Bearer", "expires_in": ttl_seconds})


@blueprint.route("/me")
@authenticated()
@blueprint.success_response(200, schemas.User)
@blueprint.problems(401, 503)
def show_me(caller: Caller) -> Response:
    """The user whom the token names."""
    return success(schemas.User().dump(repository.get_self(caller)), message="OK")

"""Login, and the user of a token."""

from flask import Response, current_app, g

from payments_app.accounts import auth, emails, passwords, repository, schemas
from payments_app.accounts.auth import SCHEME, AnyScope, authenticated
from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.repository import Credentials
from payments_app.api.blueprint import Blueprint, json_response, ok
from payments_app.api.rate_limits import failed_logins, failed_logins_per_address
from payments_app.errors import InvalidCredentials

login_blueprint = Blueprint("login", __name__, url_prefix="/api", description="Login: a bearer token for a password")
blueprint = Blueprint("accounts", __name__, url_prefix="/api/v1", description="The user of the token")


@login_blueprint.route("/login", methods=["POST"])
@failed_logins_per_address
@login_blueprint.arguments(schemas.Login, location="json_or_form")
@login_blueprint.response(200, schemas.Token)
# The form is not in the document: of two media types openapi-python-client makes a module that cannot be imported.
@login_blueprint.doc(operationId="login", security=[])
@login_blueprint.problems(400, 401, 413, 415, 422, 429, 503)
def login(body: dict[str, str]) -> Response:
    """Log in: exchange an e-mail address and a password for a bearer token.

    A form (`application/x-www-form-urlencoded`) with the same two fields does the same.
    """
    g.login_email = emails.normalized(body["email"])
    credentials = _check(body["email"], body["password"])
    ttl_seconds = current_app.config["SETTINGS"].access_token_ttl_seconds
    return json_response({"token": auth.issue(credentials), "token_type": SCHEME, "expires_in": ttl_seconds})


@failed_logins
def _check(email: str, password: str) -> Credentials:
    credentials = repository.find_credentials(email)
    # The password is always checked, even for an unknown user: all refusals take the same time.
    correct = passwords.is_correct(password, credentials.password_hash if credentials else None)
    if credentials is None or not correct or credentials.disabled:
        raise InvalidCredentials
    return credentials


@blueprint.route("/me")
@authenticated(*Role, scope=AnyScope.ANY)
@blueprint.without_parameters
@blueprint.success_response(200, schemas.User)
@blueprint.problems(401, 403, 422, 429, 503)
def show_me(caller: Caller) -> Response:
    """Show the user of the token; for a payment link its patient, with the role `payer`."""
    return ok({**schemas.User().dump(repository.get_self(caller)), "role": caller.role}, message="OK")

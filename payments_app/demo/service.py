"""Prepares what the example of a booking site needs: a user, an API key, and a webhook endpoint."""

from pathlib import Path

from payments_app.accounts import api_keys
from payments_app.accounts.api_keys import NewKey
from payments_app.accounts.models import Role, Scope
from payments_app.accounts.passwords import NO_PASSWORD
from payments_app.accounts.system_user import system_caller
from payments_app.demo import repository
from payments_app.errors import NotAuthenticated
from payments_app.webhook_endpoints import repository as webhook_endpoints
from payments_app.webhook_endpoints.models import ALL_TYPES
from payments_app.webhook_endpoints.repository import NewEndpoint

# An admin, because it refunds; nobody can log in as it.
SITE_EMAIL = "booking-site@test.com"
SITE_NAME = "The demo's booking site"
SCOPES = (
    Scope.CONSULTATIONS_WRITE,
    Scope.LINKS_WRITE,
    Scope.PAYMENTS_READ,
    Scope.REFUNDS_WRITE,
    Scope.EVENTS_READ,
)


def get_or_create_key(file: Path) -> str:
    """The site's API key, which the file keeps: the database has only its hash. A key that ended is replaced."""
    try:
        key = file.read_text()
        api_keys.authenticate(key)
    except (FileNotFoundError, NotAuthenticated):
        repository.add_user(email=SITE_EMAIL, name=SITE_NAME, role=Role.ADMIN, password_hash=NO_PASSWORD)
        new = NewKey(name=SITE_NAME, scopes=SCOPES, lifetime=None, created_by=system_caller().actor)
        _, key = api_keys.create(new, email=SITE_EMAIL)
        file.touch(mode=0o600)
        file.write_text(key)
    return key


def get_or_create_endpoint(url: str) -> str:
    """Let the site's endpoint lead to ``url``; returns its secret."""
    page = webhook_endpoints.list_page(before_id=None, per_page=100)
    known = next((endpoint for endpoint in page.rows if endpoint.description == SITE_NAME), None)
    if known is None:
        new = NewEndpoint(url=url, types=[ALL_TYPES], description=SITE_NAME)
        return webhook_endpoints.create(new, caller=system_caller()).secret
    webhook_endpoints.change(known.id, {"url": url, "is_enabled": True}, caller=system_caller())
    return known.secret

"""Those who act for the clinic without logging in: its commands."""

from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.repository import NewUser, by_email, insert_user
from payments_app.db.transaction import write_transaction

# A reserved name (RFC 2606): nobody can have that address, and no password fits its hash.
SYSTEM_EMAIL = "commands@system.invalid"


@write_transaction
def system_caller(session: Session) -> Caller:
    """The user that commands act as, added when the first of them runs; their keys are kept under it."""
    no_hash = "none"  # nothing verifies against it
    insert_user(session, NewUser(email=SYSTEM_EMAIL, name="Commands", role=Role.ADMIN, password_hash=no_hash))
    found = session.scalars(by_email(SYSTEM_EMAIL)).one()
    return Caller(user_id=found.id, role=found.role, token_version=found.token_version)

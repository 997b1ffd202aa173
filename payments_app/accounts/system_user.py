"""The system user: commands run as this user, without a login."""

from sqlalchemy.orm import Session

from payments_app.accounts.caller import Caller
from payments_app.accounts.models import Role
from payments_app.accounts.passwords import NO_PASSWORD
from payments_app.accounts.repository import NewUser, by_email, insert_user
from payments_app.db.transaction import write_transaction

# A reserved domain (RFC 2606): no real user can have this address, and no password is valid for it.
SYSTEM_EMAIL = "commands@system.invalid"


@write_transaction
def system_caller(session: Session) -> Caller:
    """The user that commands run as; the first command adds it. Idempotency keys of commands belong to it."""
    insert_user(session, NewUser(email=SYSTEM_EMAIL, name="Commands", role=Role.ADMIN, password_hash=NO_PASSWORD))
    found = session.scalars(by_email(SYSTEM_EMAIL)).one()
    return Caller(user_id=found.id, role=found.role, token_version=found.token_version)

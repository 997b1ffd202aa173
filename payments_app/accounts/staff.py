"""Those who act for the clinic without logging in: its commands."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.callers import Caller
from payments_app.accounts.models import Role, User
from payments_app.database import insert_or_nothing, write_transaction

# A reserved name (RFC 2606): nobody can have that address, and no password fits its hash.
SYSTEM_EMAIL = "commands@system.invalid"


@write_transaction
def system_caller(session: Session) -> Caller:
    """The user that commands act as, added when the first of them runs; their keys are kept under it."""
    user = insert_or_nothing(session, User).values(
        email=SYSTEM_EMAIL,
        name="Commands",
        role=Role.ADMIN.value,
        password_hash="none",  # noqa: S106  # no hash at all: nothing verifies against it
        token_version=0,
        created_at=clock.now(),
    )
    session.execute(user.on_conflict_do_nothing(index_elements=["email"]))
    found = session.scalars(select(User).where(User.email == SYSTEM_EMAIL)).one()
    return Caller(user_id=found.id, role=found.role, token_version=found.token_version)

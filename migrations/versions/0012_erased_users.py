"""When a patient's personal data were erased. Nullable, so that the release before this one goes on as it is."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("erased_at", sa.DateTime(timezone=True)), **_if_not_there())


def downgrade() -> None:
    op.drop_column("users", "erased_at")


def _if_not_there() -> dict[str, Any]:
    return {"if_not_exists": True} if op.get_context().dialect.name == "postgresql" else {}

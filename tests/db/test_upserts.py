"""``ON CONFLICT DO UPDATE`` is only of a table without partial indexes, which it can damage on other databases.

docs/performance.md names the databases.
"""

from sqlalchemy.dialects import postgresql

from payments_app.db.base import table_of
from payments_app.gateway_webhooks.models import WebhookEvent
from payments_app.payments.models.payment import Payment
from tests.support.databases import ROOT


def partial_indexes(model: type[WebhookEvent | Payment]) -> list[str]:
    indexes = table_of(model).indexes
    return sorted(
        str(index.name) for index in indexes if index.dialect_options[postgresql.dialect.name]["where"] is not None
    )


def test_only_events_of_gateways_are_updated_on_conflict() -> None:
    sources = (ROOT / "payments_app").rglob("*.py")

    assert [str(path.relative_to(ROOT)) for path in sources if "on_conflict_do_update" in path.read_text()] == [
        "payments_app/gateway_webhooks/repository.py"
    ]


def test_their_table_has_no_partial_index() -> None:
    assert partial_indexes(WebhookEvent) == []
    assert "uq_payments_active_consultation" in partial_indexes(Payment)

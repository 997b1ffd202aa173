"""Ways in which a service with several sessions for one payment could be wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from payments_app.gateway_webhooks import routes
from payments_app.gateways.paymongo.client import PayMongoGateway
from payments_app.payments import confirm, expire, gateway_updates, resume
from payments_app.payments.models.payment import Payment

PagesMutation = Callable[[pytest.MonkeyPatch], None]


def with_newer_sessions_left_open(patch: pytest.MonkeyPatch) -> None:
    for module in (gateway_updates, confirm, expire, routes):
        patch.setattr(module, "end_newer_session", lambda *_: True)


def with_older_sessions_not_asked(patch: pytest.MonkeyPatch) -> None:
    for module in (expire, resume):
        patch.setattr(module, "look_up_older", lambda _: None)


def with_second_money_that_nobody_reviews(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gateway_updates, "flag_once", lambda *_: None)


def with_second_money_reviewed_once_for_each_event(patch: pytest.MonkeyPatch) -> None:
    def flag(_session: object, payment: Payment, event: str, reference: str | None, context: object) -> None:
        payment.flag_for_review(event, context, reference=reference)  # type: ignore[arg-type]  # an AuditContext

    patch.setattr(gateway_updates, "flag_once", flag)


def with_keys_that_paymongo_is_believed_to_remember(patch: pytest.MonkeyPatch) -> None:
    remembering = replace(PayMongoGateway.capabilities, remembers_keys_seconds=24 * 3600)
    patch.setattr(PayMongoGateway, "capabilities", remembering)


# By the gateway on whose page each shows.
PAGES_MUTATIONS: dict[PagesMutation, str] = {
    with_newer_sessions_left_open: "paymongo",
    with_older_sessions_not_asked: "paymongo",
    with_second_money_that_nobody_reviews: "paymongo",
    with_second_money_reviewed_once_for_each_event: "paymongo",
    with_keys_that_paymongo_is_believed_to_remember: "paymongo",
}

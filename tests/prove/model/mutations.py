"""Ways in which the service could be wrong: each takes one thing out of it, or turns it round."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.dialects import postgresql, sqlite

from payments_app.accounts.caller import Caller, LinkRecord
from payments_app.accounts.models import Role
from payments_app.db.statement import DirectStatement
from payments_app.gateways.base import Approved, Declined, OutcomeUnknown
from payments_app.gateways.stripe.client import StripeGateway
from payments_app.idempotency import repository as idempotency
from payments_app.payments import cancel, confirm, create, create_statement, gateway_updates, repository
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund
from payments_app.payments.models.status import MOVES, PaymentStatus
from payments_app.readiness import Readiness
from payments_app.refunds import repository as refunds
from tests.support.guards import CREATE_INDEX, DROP_INDEX

Mutation = Callable[[pytest.MonkeyPatch, Engine], None]


def without_the_index(patch: pytest.MonkeyPatch, engine: Engine) -> None:
    """And with the plain insert that somebody might have written, and nobody who looks whether it is there."""
    patch.setattr(Readiness, "run_checks", lambda _: {})
    with engine.begin() as connection:
        connection.execute(text(DROP_INDEX))
        connection.execute(text(CREATE_INDEX.replace("UNIQUE ", "")))
    with pytest.MonkeyPatch.context() as while_made:
        for dialect in (sqlite, postgresql):
            while_made.setattr(dialect.Insert, "on_conflict_do_nothing", lambda statement, **_: statement)
        statements = create_statement.Statements(
            DirectStatement(create_statement._one_statement(by_link=False)),
            create_statement._statements_in_turn(by_link=False),
        )
    patch.setattr(create, "STATEMENTS", statements)


def with_keys_that_are_not_compared(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(idempotency, "_require_same", lambda *_: None)


def with_keys_that_are_never_found(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(idempotency, "response_of", lambda *_: None)


def with_pruning_that_deletes(patch: pytest.MonkeyPatch, engine: Engine) -> None:
    def prune(*, before: Any, size: int) -> int:  # noqa: ARG001  # all of them at once
        with engine.begin() as connection:
            return connection.execute(
                text("DELETE FROM idempotency_keys WHERE created_at < :before"), {"before": before}
            ).rowcount

    patch.setattr(idempotency, "prune_batch", prune)


def without_expected_versions(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(repository.Conditions, "require", lambda *_: None)


def with_refunds_beyond_what_is_left(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(Payment, "refundable_minor", property(lambda payment: payment.received_minor))


def with_refunds_that_reserve_nothing(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(Payment, "reserve_refund", lambda payment, _, event, context: payment._change(event, context))


def with_approvals_that_decide_twice(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(Refund, "require_requested", lambda *_, **__: None)


def with_unknown_taken_for_failed(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    settled = refunds._settled

    def settle(session: Any, refund_id: int, outcome: Any, context: Any, **more: Any) -> Any:
        failed = Declined("no answer") if isinstance(outcome, OutcomeUnknown) else outcome
        return settled(session, refund_id, failed, context, **more)

    patch.setattr(refunds, "_settled", settle)


def with_refunds_sent_again_without_looking(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    sent = StripeGateway.refund

    def send(gateway: StripeGateway, order: Any) -> Any:
        create_refund = gateway._refunds.create
        patch.setattr(
            gateway._refunds, "create", lambda params, _: create_refund(params, {"idempotency_key": str(uuid4())})
        )
        return sent(gateway, order)

    patch.setattr(StripeGateway, "refund", send)
    patch.setattr(StripeGateway, "look_up_refund", lambda *_: None)


def with_confirms_that_are_not_verified(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(confirm, "verify", lambda _, session: Approved(session.money.transaction_id))


def with_confirms_that_are_no_retries(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    judge = confirm._judge

    def strict(session: Any, payment: Payment, *more: Any, **rest: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Payment, "was_completed_by", lambda *_: False)
            return judge(session, payment, *more, **rest)

    patch.setattr(confirm, "_judge", strict)


def with_cancels_that_leave_the_session(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(cancel.CancellationPlan, "end_sessions", lambda *_: None)


def with_cancelled_ones_brought_to_life(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setitem(MOVES, PaymentStatus.CANCELLED, frozenset({PaymentStatus.COMPLETED}))


def with_late_money_lost(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(Payment, "quarantine", lambda *_, **__: None)


def with_two_versions_for_one_effect(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    receive = gateway_updates.record_received_money

    def twice(session: Any, payment: Payment, money: Any, **more: Any) -> None:
        receive(session, payment, money, **more)
        session.flush()
        payment.receipt_url = f"https://receipts.example/{uuid4()}"

    patch.setattr(confirm, "record_received_money", twice)


def without_events_of_a_cancel(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    append = Payment._append

    def sometimes(payment: Payment, event: str, *more: Any) -> None:
        if event != "payment.cancelled":
            append(payment, event, *more)

    patch.setattr(Payment, "_append", sometimes)


def with_invoices_that_stay_as_they_are(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr("payments_app.invoices.models.Invoice.void", lambda *_: None)


def with_payments_for_everybody(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    require = Caller.require_access

    def anybodys(caller: Caller, missing: Any, **of: Any) -> None:
        require(replace(caller, role=Role.ADMIN), missing, **of)

    patch.setattr(Caller, "require_access", anybodys)


def with_links_that_cannot_be_revoked(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    is_usable = LinkRecord.is_usable
    patch.setattr(LinkRecord, "is_usable", lambda link, now: is_usable(link._replace(revoked_at=None), now))


def with_links_that_pay_any_consultation(patch: pytest.MonkeyPatch, _engine: Engine) -> None:
    patch.setattr(Caller, "require_access", lambda *_, **__: None)


MUTATIONS: tuple[Mutation, ...] = (
    without_the_index,
    with_keys_that_are_not_compared,
    with_keys_that_are_never_found,
    with_pruning_that_deletes,
    without_expected_versions,
    with_refunds_beyond_what_is_left,
    with_refunds_that_reserve_nothing,
    with_approvals_that_decide_twice,
    with_unknown_taken_for_failed,
    with_refunds_sent_again_without_looking,
    with_confirms_that_are_not_verified,
    with_confirms_that_are_no_retries,
    with_cancels_that_leave_the_session,
    with_cancelled_ones_brought_to_life,
    with_late_money_lost,
    with_two_versions_for_one_effect,
    without_events_of_a_cancel,
    with_invoices_that_stay_as_they_are,
    with_payments_for_everybody,
    with_links_that_cannot_be_revoked,
    with_links_that_pay_any_consultation,
)

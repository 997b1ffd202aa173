"""The service under test, beside its model: an app on a real database, with a fake Stripe, emptied for each example."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar

from flask import Flask
from sqlalchemy import text

from payments_app import clock
from payments_app.errors import PaymentDisputed
from payments_app.idempotency import repository as idempotency
from payments_app.payments import audit, expire, resume
from payments_app.payments.deadlines import Deadlines
from payments_app.payments.models.event import AuditContext
from payments_app.refunds import service
from tests.gateway_webhooks import tell
from tests.support.admissions import call_however_silent
from tests.support.apps import engine_of
from tests.support.client import ApiResponse
from tests.support.databases import empty
from tests.support.fake_paymongo import FakePayMongo
from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_state import Wire
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.stripe_apps import StripeApp

# The patient of each consultation at first.
PATIENTS = {1: "patient", 2: "patient", 3: "other"}

# Members of a payment in the API, and the same values from its table: amounts in major units, booleans as numbers.
SHOWN = ("consultation_id", "amount", "status", "version", "transaction_id", "refunded_amount", "needs_review")
_PAYMENTS = text(
    "SELECT id, consultation_id, amount_minor / 100, status, version, transaction_id, refunded_minor / 100,"
    " CASE WHEN needs_review THEN 1 ELSE 0 END FROM payments"
)


Fake = TypeVar("Fake", FakeStripe, FakePayMongo)


@dataclass(frozen=True)
class ServiceUnderTest(Generic[Fake]):
    """The operations besides HTTP: timers, the passing of time, and the audit."""

    fake: Fake
    app: Flask
    people: People
    rows: Rows

    @classmethod
    def emptied(cls, fake: Fake, app: Flask) -> Self:
        fake.reset()
        call_however_silent(app)  # the model has no breaker, and its weather is often bad
        with app.app_context():
            empty(engine_of(app))
        people = People(app, patient=range(1, 3), other=range(3, 4))
        return cls(fake, app, people, Rows(engine_of(app)))

    def hear(self: "ServiceUnderTest[FakeStripe]", event: Wire) -> None:
        tell(StripeApp(self.fake, self.app, self.people), event)

    def make_overdue(self, payment_id: int) -> None:
        """Make it older than any gateway's time limit: a week and a day."""
        at = self.rows.moment(datetime.now(UTC) - timedelta(days=8))
        self.rows.execute("UPDATE payments SET created_at = :at WHERE id = :id", at=at, id=payment_id)
        # Its sessions too, as far as they have an end.
        ended = "UPDATE gateway_sessions SET expires_at = :at WHERE payment_id = :id AND expires_at IS NOT NULL"
        self.rows.execute(ended, at=at, id=payment_id)

    def make_old(self, user_id: int, key: str) -> None:
        at = self.rows.moment(datetime.now(UTC) - timedelta(days=2))
        named = "WHERE user_id = :user_id AND key = :key"
        self.rows.execute(f"UPDATE idempotency_keys SET created_at = :at {named}", at=at, user_id=user_id, key=key)

    # As the commands of the same names, without their output.

    def expire(self) -> None:
        with self.app.app_context():
            for payment_id in list(expire.find_overdue(self._deadlines())):
                expire.expire(payment_id, self._context())
            expire.end_sessions_of_paid(self._context())

    def resume(self) -> None:
        settings = self.app.config["SETTINGS"]
        with self.app.app_context():
            for refund_id in list(service.find_open(clock.now())):
                with suppress(PaymentDisputed):  # it stays open, and is not sent
                    service.resume(refund_id, lease_seconds=settings.refund_lease_seconds, context=self._context())
            for payment_id in list(resume.find_processing()):
                resume.resume(payment_id, self._deadlines(), self._context())

    def prune(self) -> None:
        retention = timedelta(seconds=self.app.config["SETTINGS"].idempotency_retention_seconds)
        with self.app.app_context():
            idempotency.prune_batch(before=clock.now() - retention, size=1_000)

    def payments(self) -> dict[int, tuple[Any, ...]]:
        """All payments as stored."""
        with engine_of(self.app).begin() as connection:
            return {row[0]: tuple(row[1:]) for row in connection.execute(_PAYMENTS)}

    def violations(self) -> list[Any]:
        return Rows(engine_of(self.app)).violations()

    def audit(self) -> list[Any]:
        """The violations, by the checks of the command one by one."""
        with self.app.app_context():
            return [offender for check in audit.CHECKS for offender in audit.find_violations(check)]

    def ask(self, path: str) -> Any:
        """The data of a GET by staff."""
        answer = self.people.admin.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json["data"]

    def _deadlines(self) -> Deadlines:
        return Deadlines.at(clock.now(), self.app.config["SETTINGS"])

    @staticmethod
    def _context() -> AuditContext:
        return AuditContext("command:model", None, clock.now())


def problem_of(answer: ApiResponse) -> str | None:
    """The end of the problem's type; None for an answer that is none."""
    return answer.json["type"].rpartition("/")[2] if answer.mimetype == "application/problem+json" else None

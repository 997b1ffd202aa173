"""By when a pending payment has to be paid."""

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, or_

from config import Settings
from payments_app.gateways.base import SessionStatus
from payments_app.gateways.registry import configured_gateways
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.status import PaymentStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a pending payment may take, and the moment ``now`` at which that is judged.

    ``by_hand``: the gateways that cannot be asked. People carry out their payments, which takes days.
    """

    now: datetime
    pending_ttl: timedelta
    by_hand_ttl: timedelta
    by_hand: Set[str]

    @classmethod
    def at(cls, now: datetime, settings: Settings) -> "Deadlines":
        by_hand = {name for name, gateway in configured_gateways().items() if not gateway.capabilities.can_be_asked}
        return cls(
            now=now,
            pending_ttl=timedelta(seconds=settings.payment_pending_ttl_seconds),
            by_hand_ttl=timedelta(seconds=settings.payment_manual_ttl_seconds),
            by_hand=frozenset(by_hand),
        )

    def end_of(self, payment: Payment, session_ends_at: datetime | None) -> datetime:
        """When a pending payment ends: after its time, but not before its open session does."""
        own_end = payment.created_at + (self.by_hand_ttl if payment.gateway in self.by_hand else self.pending_ttl)
        return own_end if session_ends_at is None else max(own_end, session_ends_at)

    def have_passed(self, payment: Payment, session_ends_at: datetime | None) -> bool:
        return self.end_of(payment, session_ends_at) < self.now

    def overdue(self) -> ColumnElement[bool]:
        """The same as a condition on the rows of pending payments."""
        by_hand = Payment.gateway.in_(sorted(self.by_hand))
        too_old = or_(
            and_(by_hand, Payment.created_at < self.now - self.by_hand_ttl),
            and_(~by_hand, Payment.created_at < self.now - self.pending_ttl),
        )
        can_be_paid = exists().where(
            GatewaySession.payment_id == Payment.id,
            GatewaySession.status == SessionStatus.OPEN.value,
            GatewaySession.expires_at >= self.now,
        )
        return and_(Payment.status == PaymentStatus.PENDING.value, too_old, ~can_be_paid)

"""Scratch rows: the rows that a proof writes into a deployment's database, reads, and removes again.

A row is the proof's if it belongs to a user whose address ends in ``proof.invalid``, a reserved domain (RFC 2606). No
other row is ever changed here.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, TextClause, bindparam, delete, func, select, text
from sqlalchemy.orm import Session

from payments_app import clock
from payments_app.accounts.models import PaymentLink, Role, User
from payments_app.accounts.passwords import NO_PASSWORD
from payments_app.accounts.repository import Credentials, NewUser, by_email, insert_user
from payments_app.accounts.scratch import SCRATCH_DOMAIN
from payments_app.consultations.models import Consultation
from payments_app.db.base import table_of
from payments_app.db.engine import current_engines
from payments_app.db.transaction import read_transaction, write_transaction
from payments_app.gateways.base import SessionStatus
from payments_app.gateways.events import DisputeStatus, GatewayDispute
from payments_app.idempotency.models import IdempotencyKey
from payments_app.invoices.models import Invoice, TaxRecord
from payments_app.payment_links.repository import TOKEN_BYTES, hash_of
from payments_app.payments.audit import CHECKS, Check
from payments_app.payments.disputes import apply_dispute_update
from payments_app.payments.models.credit_note import SCRATCH_SERIES, CreditNote, CreditNoteCounter
from payments_app.payments.models.dispute import Dispute
from payments_app.payments.models.event import AuditContext, PaymentEvent
from payments_app.payments.models.gateway_session import GatewaySession
from payments_app.payments.models.payment import Payment
from payments_app.payments.models.refund import Refund, RefundStatus
from payments_app.payments.repository import get_for_update

# Ids of scratch consultations. Above the ids of a booking system that counts, or that uses the microseconds since 1970
# (1.8e15 now, 9e15 in the year 2255); below ids that combine a time and a machine in 63 bits; and up to 2^53 - 1, the
# largest integer that every JSON reader keeps exact.
FIRST_CONSULTATION = 9_000_000_000_000_000
LAST_CONSULTATION = 2**53 - 1

# The number of ids per round. Each round has a random block, so that two runs at once do not collide.
CONSULTATIONS_OF_A_ROUND = 10_000

# Longer than a round can last.
LINK_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PaymentSnapshot:
    """A payment's state from its rows; amounts in minor units.

    ``returned_minor`` and ``refunds`` exclude failed refunds. ``open_sessions``: by which it could be paid.
    """

    payment_id: int
    consultation_id: int
    status: str
    is_active: bool
    received_minor: int
    returned_minor: int
    refunds: int
    completions: int
    open_sessions: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Rows that earlier runs have left, because they were killed."""

    users: int
    payments: int
    newest_at: datetime | None

    def __str__(self) -> str:
        return f"users {self.users}, payments {self.payments}"


def new_round() -> tuple[str, int]:
    """A name for the rows of a round, and the first id of its consultations. Random, independent of the seed."""
    blocks = (LAST_CONSULTATION - FIRST_CONSULTATION) // CONSULTATIONS_OF_A_ROUND
    return secrets.token_hex(6), FIRST_CONSULTATION + secrets.randbelow(blocks) * CONSULTATIONS_OF_A_ROUND


@write_transaction
def add_user(
    session: Session, name: str, role: Role, *, consultations: Sequence[int] = (), currency: str
) -> Credentials:
    """Add a user of a round, without a valid password, with consultations."""
    now = clock.now()
    email = f"prove-{name}-{secrets.token_hex(4)}@{SCRATCH_DOMAIN}"
    new = NewUser(
        email=email,
        name="payments prove",
        role=role,
        password_hash=NO_PASSWORD,
        # SQLite reuses the ids of removed users: a token of this run must not become valid for a later user.
        token_version=1 + secrets.randbelow(2**30),
    )
    insert_user(session, new)
    user = session.scalars(by_email(email)).one()
    session.add_all(
        Consultation(id=number, patient_id=user.id, currency=currency, created_at=now, updated_at=now)
        for number in consultations
    )
    return Credentials(user.id, user.role, user.token_version, user.password_hash, disabled=False)


@write_transaction
def add_link(session: Session, consultation_id: int) -> tuple[int, str]:
    """Add a payment link of a scratch consultation; returns its id and its token."""
    now, token = clock.now(), secrets.token_urlsafe(TOKEN_BYTES)
    link = PaymentLink(
        consultation_id=consultation_id,
        token_hash=hash_of(token),
        created_by=session.get_one(Consultation, consultation_id).patient_id,
        created_at=now,
        expires_at=now + LINK_LIFETIME,
    )
    session.add(link)
    session.flush()
    return link.id, token


@write_transaction
def add_dispute(session: Session, payment_id: int, name: str) -> None:
    """Apply a dispute of the whole scratch payment, as the webhook of a gateway does."""
    now = clock.now()
    payment = get_for_update(session, payment_id)
    reported = GatewayDispute(
        reference=f"prove-{name}-{payment_id}",
        transaction_id=payment.transaction_id,
        amount_minor=payment.received_minor,
        currency=payment.currency,
        reason=None,
        status=DisputeStatus.NEEDS_RESPONSE,
        due_at=None,
    )
    context = AuditContext(f"gateway:{payment.gateway}", None, now)
    apply_dispute_update(session, payment, reported, told_at=now, context=context)


@read_transaction
def find_foreign_consultations(session: Session) -> Sequence[int]:
    """Up to three consultations in the range of the proof that are not the proof's."""
    within = Consultation.id.between(FIRST_CONSULTATION, LAST_CONSULTATION)
    query = select(Consultation.id).where(within, Consultation.patient_id.not_in(_users()))
    return session.scalars(query.order_by(Consultation.id).limit(3)).all()


@read_transaction
def find_leftovers(session: Session) -> Leftovers:
    """The rows of runs that were killed, or that are active."""
    users, newest_at = session.execute(select(func.count(), func.max(User.created_at)).where(_is_ours())).one()
    payments = session.scalar(select(func.count()).where(Payment.user_id.in_(_users()))) or 0
    return Leftovers(users, payments, newest_at)


@read_transaction
def find_snapshots(session: Session, consultations: Sequence[int]) -> list[PaymentSnapshot]:
    """The payments of these consultations, in any status."""
    returned = (
        select(func.coalesce(func.sum(Refund.amount_minor), 0))
        .where(Refund.payment_id == Payment.id, Refund.status != RefundStatus.FAILED)
        .scalar_subquery()
    )
    refunds = (
        select(func.count())
        .where(Refund.payment_id == Payment.id, Refund.status != RefundStatus.FAILED)
        .scalar_subquery()
    )
    completions = (
        select(func.count())
        .where(PaymentEvent.payment_id == Payment.id, PaymentEvent.event == "payment.completed")
        .scalar_subquery()
    )
    open_sessions = (
        select(func.count())
        .where(GatewaySession.payment_id == Payment.id, GatewaySession.status == SessionStatus.OPEN.value)
        .scalar_subquery()
    )
    query = select(Payment, returned, refunds, completions, open_sessions).where(
        Payment.consultation_id.in_(consultations)
    )
    return [
        PaymentSnapshot(
            payment.id,
            payment.consultation_id,
            payment.status,
            payment.is_active,
            payment.received_minor,
            int(returned_minor),
            number,
            completed,
            sessions,
        )
        for payment, returned_minor, number, completed, sessions in session.execute(query.order_by(Payment.id))
    ]


@read_transaction
def find_violations(session: Session, consultations: Sequence[int]) -> list[str]:
    """The findings of an audit, for the payments of these consultations only."""
    ours = session.scalars(select(Payment.id).where(Payment.consultation_id.in_(consultations))).all()
    return [
        f"{check.invariant} {check.promise}: payment {row.id} {row.detail}"
        for check in CHECKS
        for row in session.execute(_among_ours(check), {"ours": ours})
    ]


def _among_ours(check: Check) -> TextClause:
    offenders = text(f"SELECT id, detail FROM ({check.query}) AS offenders WHERE id IN :ours")
    return offenders.bindparams(bindparam("ours", expanding=True))


@write_transaction
def disable(session: Session, name: str | None = None) -> None:
    """Disable the users of a round, or of all rounds: every write checks in the database that its user is enabled."""
    for user in session.scalars(select(User).where(_is_ours(name)).with_for_update()):
        user.disabled_at = user.disabled_at or clock.now()
        user.token_version += 1


@write_transaction
def remove(session: Session, name: str | None = None) -> int:
    """Delete all rows of a round, or of all rounds; returns their number.

    Elsewhere payments are never deleted, and only change through methods of loaded objects, because their history
    protects their money. Here SQL deletes them directly, which is safe for these rows. No real money belongs to them.
    The version protects a writer that has read a row before: its write fails if the row is gone, as it should. The
    users were disabled before, so that no new request begins. A request that had begun commits first; then a foreign
    key refuses this deletion, and the caller repeats it. And all is one transaction: no audit, list or metric ever sees
    half a payment.
    """
    payments = select(Payment.id).where(Payment.user_id.in_(_users(name)))
    removed = 0
    for model in (IdempotencyKey, Refund, CreditNote, Dispute, GatewaySession, PaymentEvent, TaxRecord, Invoice):
        table = table_of(model)
        removed += _delete(session, model, table.c.payment_id.in_(payments))
    removed += _remove_counter(session)
    removed += _delete(session, Payment, Payment.user_id.in_(_users(name)))
    within = Consultation.id.between(FIRST_CONSULTATION, LAST_CONSULTATION)
    ours = within & Consultation.patient_id.in_(_users(name))
    removed += _delete(session, PaymentLink, PaymentLink.consultation_id.in_(select(Consultation.id).where(ours)))
    removed += _delete(session, Consultation, ours)
    return removed + _delete(session, User, _is_ours(name))


def _remove_counter(session: Session) -> int:
    """Delete the counter of the proofs' credit notes, unless another run still has some."""
    counter = CreditNoteCounter.series == SCRATCH_SERIES
    # Locked first, in a statement of its own: then no other transaction has a note that is not committed.
    session.execute(select(CreditNoteCounter).where(counter).with_for_update())
    others = select(CreditNote.id).where(CreditNote.series == SCRATCH_SERIES)
    return _delete(session, CreditNoteCounter, counter & ~others.exists())


def _delete(session: Session, model: type, condition: ColumnElement[bool]) -> int:
    removed = session.execute(delete(table_of(model)).where(condition))
    return int(removed.rowcount)  # type: ignore[attr-defined]  # a DELETE has it


def _users(name: str | None = None) -> Select[int]:
    return select(User.id).where(_is_ours(name))


def _is_ours(name: str | None = None) -> ColumnElement[bool]:
    return User.email.like(f"prove-{name or '%'}-%@{SCRATCH_DOMAIN}")


def database_name() -> str:
    """The URL of the database, without its password."""
    return current_engines().writer.url.render_as_string(hide_password=True)

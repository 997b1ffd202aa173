"""Peer: the rest of a payment's life with FastAPI and SQLAlchemy's asynchronous ORM: checkout, webhook, GET, refund.

The create is that of ``fastapi_orm``, and the rows are those that this service writes. Cards are carried by Stripe's
own library, asynchronously; no transaction is open while it is called. Started by ``uvicorn
bench.peers.fastapi_orm_life:app``.
"""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import stripe
from fastapi import Depends, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, selectinload

from bench.peers import fastapi_orm
from bench.peers.fastapi_orm import (
    Base,
    IdempotencyKey,
    InvoiceOut,
    Payment,
    PaymentEvent,
    PaymentOut,
    Session,
    User,
    get_user,
    replay,
)

REFUND_LEASE = timedelta(seconds=60)

app = fastapi_orm.app
webhook_secret = os.environ["STRIPE_WEBHOOK_SECRET"]
gateway = stripe.StripeClient(
    os.environ["STRIPE_API_KEY"],
    base_addresses={"api": os.environ["STRIPE_API_BASE"]},
    http_client=stripe.HTTPXClient(),
)
stripe.enable_telemetry = False
Caller = Annotated[User, Depends(get_user)]
Key = Annotated[str, Header(max_length=255, alias="Idempotency-Key")]


class GatewaySession(Base):
    __tablename__ = "gateway_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int]
    gateway: Mapped[str] = mapped_column(default="stripe")
    reference: Mapped[str]
    status: Mapped[str] = mapped_column(default="open")
    number: Mapped[int] = mapped_column(default=1)
    amount_minor: Mapped[int]
    currency: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookEvent(Base):
    __tablename__ = "webhook_events"
    gateway: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    reference: Mapped[str]
    payment_id: Mapped[int | None]
    created_at: Mapped[datetime]
    received_at: Mapped[datetime]


class Refund(Base):
    __tablename__ = "refunds"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int]
    amount_minor: Mapped[int]
    excess_minor: Mapped[int] = mapped_column(default=0)
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    reason: Mapped[str | None]
    gateway: Mapped[str] = mapped_column(default="stripe")
    reference: Mapped[str | None] = mapped_column(default=None)
    made_elsewhere: Mapped[bool] = mapped_column(default=False)
    leased_until: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None] = mapped_column(default=None)
    requested_by: Mapped[int]
    credit_note_id: Mapped[int | None] = mapped_column(default=None)

    @property
    def amount(self) -> float:
        return self.amount_minor / 100


class CreditNote(Base):
    __tablename__ = "credit_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int]
    invoice_id: Mapped[int]
    series: Mapped[str] = mapped_column(default="CN")
    number: Mapped[int]
    amount_minor: Mapped[int]
    tax_minor: Mapped[int]
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="issued")
    issued_at: Mapped[datetime]


# The numbers have no gaps, so a sequence is not enough.
NEXT_CREDIT_NOTE = text(
    "INSERT INTO credit_note_counters (series, last_number) VALUES ('CN', 1)"
    " ON CONFLICT (series) DO UPDATE SET last_number = credit_note_counters.last_number + 1 RETURNING last_number"
)


class TaxRecordOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    payment_id: int
    tax_type: str
    amount_minor: int
    status: str


class RefundOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    payment_id: int
    amount: float
    currency: str
    status: str
    reason: str | None
    created_at: datetime
    settled_at: datetime | None
    credit_note_id: int | None


class PaymentDetails(PaymentOut):
    invoices: list[InvoiceOut]
    tax_records: list[TaxRecordOut]
    refunds: list[RefundOut] = []


class Shown(BaseModel):
    data: PaymentDetails
    message: str = "OK"


class RefundedData(BaseModel):
    payment: PaymentOut
    refund: RefundOut
    refund_amount: float


class Refunded(BaseModel):
    data: RefundedData
    message: str = "Refund made"


class RefundCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: Annotated[float, Field(gt=0)]
    reason: str | None = None


@app.get("/api/v1/payments/{payment_id}", response_model=Shown)
async def show_payment(payment_id: int, session: Session, user: Caller) -> Response:
    payment = await find_payment(session, payment_id, user)
    refunds = await session.scalars(select(Refund).where(Refund.payment_id == payment.id).order_by(Refund.id))
    details = PaymentDetails.model_validate(payment)
    details.refunds = [RefundOut.model_validate(each) for each in refunds]
    return Response(Shown(data=details).model_dump_json(), media_type="application/json")


@app.post("/api/v1/payments/{payment_id}/checkout")
async def open_checkout(payment_id: int, key: Key, session: Session, user: Caller) -> dict[str, Any]:
    payment = await find_payment(session, payment_id, user)
    if payment.status != "pending":
        raise HTTPException(409)
    has_key = await session.get(IdempotencyKey, (user.id, key)) is not None
    charge, user_id = PaymentOut.model_validate(payment), user.id
    amount_minor, consultation_id = payment.amount_minor, payment.consultation_id
    await session.commit()
    intent = await gateway.v1.payment_intents.create_async(
        {
            "amount": amount_minor,
            "currency": charge.currency.lower(),
            "metadata": {"payment_id": str(payment_id), "consultation_id": str(consultation_id)},
        },
        {"idempotency_key": f"checkout-{payment_id}"},
    )
    if not has_key:
        now = datetime.now(UTC)
        locked = await session.get(Payment, payment_id, with_for_update=True, populate_existing=True)
        if locked is None or locked.status != "pending":
            raise HTTPException(409)
        opened = GatewaySession(
            payment_id=payment_id,
            reference=intent.id,
            amount_minor=amount_minor,
            currency=charge.currency,
            created_at=now,
            updated_at=now,
        )
        canonical = f'{{"payment_id": {payment_id}}}'
        used_key = IdempotencyKey(
            user_id=user_id,
            key=key,
            operation="checkout",
            request=canonical,
            request_hash=hashlib.sha256(canonical.encode()).hexdigest(),
            payment_id=payment_id,
            response_status=200,
            response_body=None,
            created_at=now,
        )
        session.add_all([opened, used_key])
        await session.commit()
    data = {"gateway": "stripe", "reference": intent.id, "client_secret": intent.client_secret, "payment": charge}
    return {"data": data, "message": "OK"}


@app.post("/api/v1/webhooks/stripe")
async def receive_event(request: Request, session: Session) -> dict[str, Any]:
    try:
        event = stripe.Webhook.construct_event(
            await request.body(), request.headers["Stripe-Signature"], webhook_secret
        )
    except (KeyError, ValueError, stripe.SignatureVerificationError):
        raise HTTPException(400) from None
    intent, now = event.data.object, datetime.now(UTC)
    opened = await session.scalar(
        select(GatewaySession).where(GatewaySession.gateway == "stripe", GatewaySession.reference == intent.id)
    )
    payment = await get_locked(session, opened.payment_id) if opened else None
    stored = insert(WebhookEvent).values(
        gateway="stripe",
        event_id=event.id,
        type=event.type,
        reference=intent.id,
        payment_id=None if payment is None else payment.id,
        created_at=datetime.fromtimestamp(event.created, UTC),
        received_at=now,
    )
    is_new = await session.scalar(stored.on_conflict_do_nothing().returning(WebhookEvent.event_id)) is not None
    is_paid = is_new and event.type == "payment_intent.succeeded" and intent.amount_received > 0
    if payment is not None and opened is not None and is_paid and payment.status == "pending":
        payment.status, payment.transaction_id = "completed", intent.id
        payment.received_minor, payment.completed_at = intent.amount_received, now
        note(payment, "payment.completed", "pending", "gateway:stripe", now)
        for invoice in payment.invoices:
            invoice.status, invoice.paid_at = "paid", now
        opened.status, opened.updated_at = "succeeded", now
    await session.commit()
    return {"data": {"received": True}, "message": "OK"}


@app.post("/api/v1/payments/{payment_id}/refund", response_model=Refunded)
async def refund_payment(payment_id: int, wanted: RefundCreate, key: Key, session: Session, user: Caller) -> Response:
    if user.role != "admin":
        raise HTTPException(403)
    user_id, actor, amount_minor = user.id, f"admin:{user.id}", round(wanted.amount * 100)
    canonical, request_hash = request_of(payment_id, wanted)
    if stored := await session.get(IdempotencyKey, (user_id, key)):
        return replay(stored, request_hash)
    payment, now = await get_locked(session, payment_id), datetime.now(UTC)
    left_minor = payment.received_minor - payment.refund_reserved_minor - payment.refunded_minor
    if payment.status not in ("completed", "partially_refunded") or amount_minor > left_minor:
        raise HTTPException(409)
    refund = Refund(
        payment_id=payment_id,
        amount_minor=amount_minor,
        currency=payment.currency,
        reason=wanted.reason,
        leased_until=now + REFUND_LEASE,
        created_at=now,
        requested_by=user_id,
    )
    session.add(refund)
    payment.refund_reserved_minor += amount_minor
    note(payment, "refund.requested", payment.status, actor, now)
    await session.commit()  # before the gateway is asked: a refund whose response is lost must be found again
    made = await gateway.v1.refunds.create_async(
        {
            "payment_intent": str(payment.transaction_id),
            "amount": amount_minor,
            "metadata": {"refund_id": str(refund.id), "payment_id": str(payment_id)},
        },
        {"idempotency_key": f"refund-{refund.id}"},
    )
    payment, now = await get_locked(session, payment_id), datetime.now(UTC)
    refund.reference = made.id
    await settle(session, payment, refund, actor=actor, now=now)
    body = Refunded(
        data=RefundedData(
            payment=PaymentOut.model_validate(payment),
            refund=RefundOut.model_validate(refund),
            refund_amount=refund.amount,
        )
    ).model_dump_json()
    used_key = IdempotencyKey(
        user_id=user_id,
        key=key,
        operation="refund",
        request=canonical,
        request_hash=request_hash,
        payment_id=payment_id,
        response_status=200,
        response_body=body,
        created_at=now,
    )
    session.add(used_key)
    await session.commit()
    return Response(body, media_type="application/json")


async def settle(session: AsyncSession, payment: Payment, refund: Refund, *, actor: str, now: datetime) -> None:
    """The gateway has made it: amounts, statuses, and a credit note."""
    before = payment.status
    refund.status, refund.settled_at = "succeeded", now
    refund.version += 1
    payment.refund_reserved_minor -= refund.amount_minor
    payment.refunded_minor += refund.amount_minor
    is_all = payment.refunded_minor == payment.received_minor
    payment.status = "refunded" if is_all else "partially_refunded"
    note(payment, "refund.succeeded", before, actor, now)
    (invoice,), (tax_record,) = payment.invoices, payment.tax_records
    if is_all:
        invoice.status = "refunded"
    credit_note = CreditNote(
        payment_id=payment.id,
        invoice_id=invoice.id,
        number=await session.scalar(NEXT_CREDIT_NOTE),
        amount_minor=refund.amount_minor,
        tax_minor=tax_record.amount_minor * refund.amount_minor // payment.amount_minor,
        currency=payment.currency,
        issued_at=now,
    )
    session.add(credit_note)
    await session.flush()  # gives it the id for the refund
    refund.credit_note_id = credit_note.id


async def find_payment(session: AsyncSession, payment_id: int, user: User) -> Payment:
    rows = (selectinload(Payment.invoices), selectinload(Payment.tax_records))
    payment = await session.get(Payment, payment_id, options=rows)
    if payment is None:
        raise HTTPException(404)
    if payment.user_id != user.id and user.role != "admin":
        raise HTTPException(403)
    return payment


async def get_locked(session: AsyncSession, payment_id: int) -> Payment:
    rows = (selectinload(Payment.invoices), selectinload(Payment.tax_records), selectinload(Payment.events))
    payment = await session.get(Payment, payment_id, options=rows, with_for_update=True, populate_existing=True)
    if payment is None:
        raise HTTPException(404)
    return payment


def note(payment: Payment, event: str, from_status: str, actor: str, now: datetime) -> None:
    payment.version += 1
    payment.updated_at = now
    payment.events.append(
        PaymentEvent(
            event=event,
            from_status=from_status,
            to_status=payment.status,
            version=payment.version,
            actor=actor,
            created_at=now,
        )
    )


def request_of(payment_id: int, wanted: RefundCreate) -> tuple[str, str]:
    """The request as it is stored under its key, and its hash."""
    canonical = f'{{"payment_id": {payment_id}, "wanted": {wanted.model_dump_json()}}}'
    return canonical, hashlib.sha256(canonical.encode()).hexdigest()

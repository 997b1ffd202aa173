"""Peer: the create with FastAPI, pydantic and SQLAlchemy's asynchronous ORM on asyncpg.

Written as in its documentation: a session and the user by ``Depends``, relationships, and a flush only where an
id is needed. The tables, with all their indexes and constraints, are this project's; ids come from sequences.
Started by ``uvicorn bench.peers.fastapi_orm:app``.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, DateTime, ForeignKey, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

SECRET = os.environ["JWT_SECRET_KEY"]
engine = create_async_engine(os.environ["DATABASE_URL"].replace("+psycopg", "+asyncpg"), pool_size=8)
new_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
bearer = HTTPBearer()


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True)}


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    token_version: Mapped[int]
    disabled_at: Mapped[datetime | None]


class Consultation(Base):
    __tablename__ = "consultations"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int]
    fee_minor: Mapped[int | None]


class Payment(Base):
    __tablename__ = "payments"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    consultation_id: Mapped[int]
    amount_minor: Mapped[int]
    currency: Mapped[str] = mapped_column(default="PHP")
    payment_method: Mapped[str]
    gateway: Mapped[str] = mapped_column(default="sandbox")
    status: Mapped[str] = mapped_column(default="pending")
    transaction_id: Mapped[str | None] = mapped_column(default=None)
    receipt_url: Mapped[str | None] = mapped_column(default=None)
    received_minor: Mapped[int] = mapped_column(default=0)
    refund_reserved_minor: Mapped[int] = mapped_column(default=0)
    refunded_minor: Mapped[int] = mapped_column(default=0)
    needs_review: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None] = mapped_column(default=None)
    deleted_at: Mapped[datetime | None] = mapped_column(default=None)

    tax_records: Mapped[list["TaxRecord"]] = relationship()
    invoices: Mapped[list["Invoice"]] = relationship()
    events: Mapped[list["PaymentEvent"]] = relationship()
    keys: Mapped[list["IdempotencyKey"]] = relationship()

    @property
    def amount(self) -> float:
        return self.amount_minor / 100

    @property
    def refunded_amount(self) -> float:
        return self.refunded_minor / 100


class TaxRecord(Base):
    __tablename__ = "tax_records"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    tax_type: Mapped[str] = mapped_column(default="VAT")
    tax_rate_basis_points: Mapped[int]
    taxable_amount_minor: Mapped[int]
    amount_minor: Mapped[int]
    status: Mapped[str] = mapped_column(default="calculated")


class Invoice(Base):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    invoice_number: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    issued_at: Mapped[datetime]
    paid_at: Mapped[datetime | None] = mapped_column(default=None)

    @property
    def amount(self) -> float:
        return self.amount_minor / 100


class PaymentEvent(Base):
    __tablename__ = "payment_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    event: Mapped[str]
    from_status: Mapped[str | None] = mapped_column(default=None)
    to_status: Mapped[str]
    version: Mapped[int]
    actor: Mapped[str]
    request_id: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[datetime]


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    user_id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str]
    request: Mapped[str | None]
    request_hash: Mapped[str]
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    response_status: Mapped[int]
    response_body: Mapped[str | None]
    created_at: Mapped[datetime]


class PaymentCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    consultation_id: Annotated[int, Field(strict=True, ge=1, lt=2**63)]
    amount: Annotated[Decimal, Field(ge=1_000, le=10_000_000, decimal_places=2)]
    payment_method: Literal["stripe", "gcash", "bank_transfer"]


class PaymentOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    user_id: int
    consultation_id: int
    amount: float
    currency: str
    payment_method: str
    gateway: str
    status: str
    transaction_id: str | None
    receipt_url: str | None
    refunded_amount: float
    needs_review: bool
    version: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class InvoiceOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    payment_id: int
    invoice_number: str
    amount: float
    currency: str
    status: str
    issued_at: datetime
    paid_at: datetime | None


class CreatedData(BaseModel):
    type: Literal["new"] = "new"
    payment_id: int
    payment: PaymentOut
    invoice: InvoiceOut


class Created(BaseModel):
    data: CreatedData
    message: str = "Payment created successfully"


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_user(session: Session, token: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> User:
    try:
        claims = jwt.decode(token.credentials, SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    user = await session.get(User, int(claims["sub"]))
    if user is None or user.disabled_at is not None or user.token_version != claims["ver"]:
        raise HTTPException(401)
    return user


@app.post("/api/v1/payments", status_code=201, response_model=Created)
async def create_payment(
    wanted: PaymentCreate,
    idempotency_key: Annotated[str, Header(max_length=255)],
    session: Session,
    user: Annotated[User, Depends(get_user)],
) -> Response:
    user_id = user.id  # after a rollback, reading it from the user would need the database
    canonical = wanted.model_dump_json()
    request_hash = hashlib.sha256(canonical.encode()).hexdigest()
    if stored := await session.get(IdempotencyKey, (user_id, idempotency_key)):
        return replay(stored, request_hash)
    consultation = await session.get(Consultation, wanted.consultation_id)
    if consultation is None:
        raise HTTPException(404)
    if consultation.patient_id != user_id:
        raise HTTPException(403)
    amount_minor = int(wanted.amount * 100)
    if consultation.fee_minor not in (None, amount_minor):
        raise HTTPException(422)
    now = datetime.now(UTC)
    payment = Payment(
        user_id=user_id,
        consultation_id=consultation.id,
        amount_minor=amount_minor,
        payment_method=wanted.payment_method,
        created_at=now,
        updated_at=now,
        tax_records=[
            TaxRecord(
                tax_rate_basis_points=1200, taxable_amount_minor=amount_minor, amount_minor=amount_minor * 12 // 100
            )
        ],
        events=[
            PaymentEvent(
                event="payment.created", to_status="pending", version=0, actor=f"patient:{user_id}", created_at=now
            )
        ],
        invoices=[],
        keys=[],
    )
    session.add(payment)
    try:
        await session.flush()  # gives it the id for the invoice number
        invoice = Invoice(
            invoice_number=f"INV-{now:%Y%m%d%H%M%S}-{payment.id}",
            amount_minor=amount_minor,
            currency=payment.currency,
            issued_at=now,
        )
        payment.invoices.append(invoice)
        await session.flush()  # gives it the id for the response
        data = CreatedData(
            payment_id=payment.id,
            payment=PaymentOut.model_validate(payment),
            invoice=InvoiceOut.model_validate(invoice),
        )
        body = Created(data=data).model_dump_json()
        payment.keys.append(
            IdempotencyKey(
                user_id=user_id,
                key=idempotency_key,
                operation="create",
                request=canonical,
                request_hash=request_hash,
                response_status=201,
                response_body=body,
                created_at=now,
            )
        )
        await session.commit()
    except IntegrityError:
        await session.rollback()
        return await respond_to_lost_race(session, user_id, wanted.consultation_id, idempotency_key, request_hash)
    return Response(body, 201, media_type="application/json")


async def respond_to_lost_race(
    session: AsyncSession, user_id: int, consultation_id: int, key: str, request_hash: str
) -> Response:
    if stored := await session.get(IdempotencyKey, (user_id, key)):
        return replay(stored, request_hash)
    active = await session.scalar(
        select(Payment).where(
            Payment.consultation_id == consultation_id,
            Payment.status.in_(["pending", "processing", "completed", "partially_refunded"]),
            Payment.deleted_at.is_(None),
        )
    )
    data = {"type": "existing", "payment_id": active.id, "status": active.status} if active else {}
    return JSONResponse({"message": "A payment exists", "data": data}, 409)


def replay(stored: IdempotencyKey, request_hash: str) -> Response:
    if stored.request_hash != request_hash:
        raise HTTPException(422)
    return Response(
        stored.response_body, stored.response_status, {"Idempotent-Replayed": "true"}, media_type="application/json"
    )

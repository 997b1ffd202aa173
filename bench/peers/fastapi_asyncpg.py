"""Peer: the create with FastAPI and asyncpg, without any ORM: the statements of bench/create.sql, prepared.

About as fast as FastAPI gets with its validation. The tables, with all their indexes and constraints, are
this project's; ids come from sequences. Started by ``uvicorn bench.peers.fastapi_asyncpg:app``.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import asyncpg
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

SECRET = os.environ["JWT_SECRET_KEY"]
bearer = HTTPBearer()

# asyncpg prepares each statement once for each connection, and keeps it.
OWNERSHIP = """
SELECT c.patient_id, c.fee_minor, u.disabled_at, u.token_version
  FROM users u LEFT JOIN consultations c ON c.id = $1 WHERE u.id = $2
"""
INSERT_PAYMENT = """
INSERT INTO payments
       (user_id, consultation_id, amount_minor, currency, payment_method, gateway, status, received_minor,
        refund_reserved_minor, refunded_minor, needs_review, version, created_at, updated_at)
VALUES ($1, $2, $3, 'PHP', $4, 'sandbox', 'pending', 0, 0, 0, false, 0, $5, $5) RETURNING id
"""
INSERT_TAX_RECORD = """
INSERT INTO tax_records (payment_id, tax_type, tax_rate_basis_points, taxable_amount_minor, amount_minor, status)
VALUES ($1, 'VAT', 1200, $2, $3, 'calculated')
"""
INSERT_INVOICE = """
INSERT INTO invoices (payment_id, invoice_number, amount_minor, currency, status, issued_at)
VALUES ($1, $2, $3, 'PHP', 'pending', $4) RETURNING id
"""
INSERT_EVENT = """
INSERT INTO payment_events (payment_id, event, to_status, version, actor, created_at)
VALUES ($1, 'payment.created', 'pending', 0, $2, $3)
"""
INSERT_KEY = """
INSERT INTO idempotency_keys
       (user_id, key, operation, request, request_hash, payment_id, response_status, response_body, created_at)
VALUES ($1, $2, 'create', $3, $4, $5, 201, $6, $7)
"""
FIND_KEY = """
SELECT request_hash, response_status, response_body FROM idempotency_keys WHERE user_id = $1 AND key = $2
"""
FIND_ACTIVE = """
SELECT id, status FROM payments
 WHERE consultation_id = $1 AND status IN ('pending', 'processing', 'completed', 'partially_refunded')
   AND deleted_at IS NULL
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    dsn = os.environ["DATABASE_URL"].replace("+psycopg", "")
    async with asyncpg.create_pool(dsn, min_size=8, max_size=8, reset=leave_as_it_is) as pool:
        app.state.pool = pool
        yield


async def leave_as_it_is(_connection: asyncpg.Connection) -> None:
    """No request changes a setting or listens, so asyncpg's reset would only cost a round trip."""


app = FastAPI(lifespan=lifespan)


class PaymentCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    consultation_id: Annotated[int, Field(strict=True, ge=1, lt=2**63)]
    amount: Annotated[Decimal, Field(ge=1_000, le=10_000_000, decimal_places=2)]
    payment_method: Literal["stripe", "gcash", "bank_transfer"]


class PaymentOut(BaseModel):
    id: int
    user_id: int
    consultation_id: int
    amount: float
    currency: str = "PHP"
    payment_method: str
    gateway: str = "sandbox"
    status: str = "pending"
    transaction_id: str | None = None
    receipt_url: str | None = None
    refunded_amount: float = 0
    needs_review: bool = False
    version: int = 0
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None


class InvoiceOut(BaseModel):
    id: int
    payment_id: int
    invoice_number: str
    amount: float
    currency: str = "PHP"
    status: str = "pending"
    issued_at: datetime
    paid_at: datetime | None = None


class CreatedData(BaseModel):
    type: Literal["new"] = "new"
    payment_id: int
    payment: PaymentOut
    invoice: InvoiceOut


class Created(BaseModel):
    data: CreatedData
    message: str = "Payment created successfully"


async def get_claims(token: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token.credentials, SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    return claims


@app.post("/api/v1/payments", status_code=201, response_model=Created)
async def create_payment(
    wanted: PaymentCreate,
    idempotency_key: Annotated[str, Header(max_length=255)],
    claims: Annotated[dict[str, Any], Depends(get_claims)],
    request: Request,
) -> Response:
    user_id = int(claims["sub"])
    canonical = wanted.model_dump_json()
    request_hash = hashlib.sha256(canonical.encode()).hexdigest()
    async with request.app.state.pool.acquire() as connection:
        try:
            async with connection.transaction():
                require_payable(
                    await connection.fetchrow(OWNERSHIP, wanted.consultation_id, user_id), wanted, user_id, claims
                )
                body = await insert_rows(
                    connection, wanted, user_id, key=idempotency_key, canonical=canonical, request_hash=request_hash
                )
        except asyncpg.UniqueViolationError:
            return await respond_to_lost_race(connection, wanted, user_id, idempotency_key, request_hash)
    return Response(body, 201, media_type="application/json")


def require_payable(found: asyncpg.Record | None, wanted: PaymentCreate, user_id: int, claims: dict[str, Any]) -> None:
    if found is None or found["disabled_at"] is not None or found["token_version"] != claims["ver"]:
        raise HTTPException(401)
    if found["patient_id"] is None:
        raise HTTPException(404)
    if found["patient_id"] != user_id:
        raise HTTPException(403)
    if found["fee_minor"] not in (None, wanted.amount * 100):
        raise HTTPException(422)


async def insert_rows(
    connection: asyncpg.Connection,
    wanted: PaymentCreate,
    user_id: int,
    *,
    key: str,
    canonical: str,
    request_hash: str,
) -> str:
    now = datetime.now(UTC)
    amount_minor = int(wanted.amount * 100)
    payment_id = await connection.fetchval(
        INSERT_PAYMENT, user_id, wanted.consultation_id, amount_minor, wanted.payment_method, now
    )
    await connection.execute(INSERT_TAX_RECORD, payment_id, amount_minor, amount_minor * 12 // 100)
    invoice_number = f"INV-{now:%Y%m%d%H%M%S}-{payment_id}"
    invoice_id = await connection.fetchval(INSERT_INVOICE, payment_id, invoice_number, amount_minor, now)
    await connection.execute(INSERT_EVENT, payment_id, f"patient:{user_id}", now)
    amount = amount_minor / 100
    payment = PaymentOut(
        id=payment_id,
        user_id=user_id,
        consultation_id=wanted.consultation_id,
        amount=amount,
        payment_method=wanted.payment_method,
        created_at=now,
        updated_at=now,
    )
    invoice = InvoiceOut(
        id=invoice_id, payment_id=payment_id, invoice_number=invoice_number, amount=amount, issued_at=now
    )
    body = Created(data=CreatedData(payment_id=payment_id, payment=payment, invoice=invoice)).model_dump_json()
    await connection.execute(INSERT_KEY, user_id, key, canonical, request_hash, payment_id, body, now)
    return body


async def respond_to_lost_race(
    connection: asyncpg.Connection, wanted: PaymentCreate, user_id: int, key: str, request_hash: str
) -> Response:
    stored = await connection.fetchrow(FIND_KEY, user_id, key)
    if stored is not None:
        if stored["request_hash"] != request_hash:
            raise HTTPException(422)
        return Response(
            stored["response_body"],
            stored["response_status"],
            {"Idempotent-Replayed": "true"},
            media_type="application/json",
        )
    active = await connection.fetchrow(FIND_ACTIVE, wanted.consultation_id)
    data = {"type": "existing", "payment_id": active["id"], "status": active["status"]} if active else {}
    raise HTTPException(409, {"message": "A payment exists", "data": data})

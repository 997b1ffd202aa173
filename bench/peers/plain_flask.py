"""Peer: the create as usually written with Flask: Flask-SQLAlchemy, relationships, a flush for each row.

The tables, with all their indexes and constraints, are this project's; ids come from sequences.
Started by ``gunicorn bench.peers.plain_flask:app``.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, abort, request
from flask_jwt_extended import JWTManager, current_user, jwt_required
from flask_sqlalchemy import SQLAlchemy
from marshmallow import Schema, ValidationError, fields, validate
from sqlalchemy import BigInteger, DateTime, ForeignKey, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship


class Base(DeclarativeBase):
    registry = registry(type_annotation_map={int: BigInteger, datetime: DateTime(timezone=True)})


app = Flask(__name__)
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": int(os.environ["THREADS"])},  # no thread waits for another's connection
    JWT_SECRET_KEY=os.environ["JWT_SECRET_KEY"],
)
db = SQLAlchemy(app, model_class=Base)
jwt = JWTManager(app)


class User(db.Model):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    token_version: Mapped[int]
    disabled_at: Mapped[datetime | None]


class Consultation(db.Model):
    __tablename__ = "consultations"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    fee_minor: Mapped[int | None]


class Payment(db.Model):
    __tablename__ = "payments"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    consultation_id: Mapped[int] = mapped_column(ForeignKey("consultations.id"))
    amount_minor: Mapped[int]
    currency: Mapped[str] = mapped_column(default="PHP")
    payment_method: Mapped[str]
    gateway: Mapped[str] = mapped_column(default="sandbox")
    status: Mapped[str] = mapped_column(default="pending")
    transaction_id: Mapped[str | None]
    receipt_url: Mapped[str | None]
    received_minor: Mapped[int] = mapped_column(default=0)
    refund_reserved_minor: Mapped[int] = mapped_column(default=0)
    refunded_minor: Mapped[int] = mapped_column(default=0)
    needs_review: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()
    consultation: Mapped[Consultation] = relationship()
    tax_records: Mapped[list["TaxRecord"]] = relationship(back_populates="payment")
    invoices: Mapped[list["Invoice"]] = relationship(back_populates="payment")
    events: Mapped[list["PaymentEvent"]] = relationship(back_populates="payment")


class TaxRecord(db.Model):
    __tablename__ = "tax_records"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    tax_type: Mapped[str] = mapped_column(default="VAT")
    tax_rate_basis_points: Mapped[int]
    taxable_amount_minor: Mapped[int]
    amount_minor: Mapped[int]
    status: Mapped[str] = mapped_column(default="calculated")
    payment: Mapped[Payment] = relationship(back_populates="tax_records")


class Invoice(db.Model):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    invoice_number: Mapped[str]
    amount_minor: Mapped[int]
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    issued_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]
    payment: Mapped[Payment] = relationship(back_populates="invoices")


class PaymentEvent(db.Model):
    __tablename__ = "payment_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    event: Mapped[str]
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    version: Mapped[int]
    actor: Mapped[str]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime]
    payment: Mapped[Payment] = relationship(back_populates="events")


class IdempotencyKey(db.Model):
    __tablename__ = "idempotency_keys"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str]
    request: Mapped[str | None]
    request_hash: Mapped[str]
    payment_id: Mapped[int] = mapped_column(ForeignKey("payments.id"))
    response_status: Mapped[int]
    response_body: Mapped[str | None]
    created_at: Mapped[datetime]
    payment: Mapped[Payment] = relationship()


class PaymentCreate(Schema):
    consultation_id = fields.Integer(required=True, strict=True, validate=validate.Range(1, 2**63 - 1))
    amount = fields.Decimal(required=True, places=2, validate=validate.Range(1_000, 10_000_000))
    payment_method = fields.String(required=True, validate=validate.OneOf(["stripe", "gcash", "bank_transfer"]))


class PaymentOut(Schema):
    id = fields.Integer()
    user_id = fields.Integer()
    consultation_id = fields.Integer()
    amount = fields.Function(lambda payment: payment.amount_minor / 100)
    currency = fields.String()
    payment_method = fields.String()
    gateway = fields.String()
    status = fields.String()
    transaction_id = fields.String()
    receipt_url = fields.String()
    refunded_amount = fields.Function(lambda payment: payment.refunded_minor / 100)
    needs_review = fields.Boolean()
    version = fields.Integer()
    created_at = fields.DateTime()
    updated_at = fields.DateTime()
    completed_at = fields.DateTime()


class InvoiceOut(Schema):
    id = fields.Integer()
    payment_id = fields.Integer()
    invoice_number = fields.String()
    amount = fields.Function(lambda invoice: invoice.amount_minor / 100)
    currency = fields.String()
    status = fields.String()
    issued_at = fields.DateTime()
    paid_at = fields.DateTime()


PAYMENT_CREATE, PAYMENT_OUT, INVOICE_OUT = PaymentCreate(), PaymentOut(), InvoiceOut()


@jwt.user_lookup_loader
def load_user(_header: dict[str, Any], claims: dict[str, Any]) -> User | None:
    user = db.session.get(User, int(claims["sub"]))
    return user if user and user.disabled_at is None and user.token_version == claims["ver"] else None


@jwt.invalid_token_loader
def refuse(_reason: str) -> Response:
    return Response(status=401)


@app.post("/api/v1/payments")
@jwt_required()
def create_payment() -> Response:
    wanted, key = read_request()
    return create_once(wanted, key)


def read_request() -> tuple[dict[str, Any], str]:
    try:
        wanted: dict[str, Any] = PAYMENT_CREATE.load(request.get_json())
    except ValidationError as error:
        abort(Response(json.dumps({"errors": error.messages}), 422, mimetype="application/json"))
    return wanted, request.headers["Idempotency-Key"]


def create_once(wanted: dict[str, Any], key: str) -> Response:
    canonical = json.dumps(wanted, sort_keys=True, default=str)
    request_hash = hashlib.sha256(canonical.encode()).hexdigest()
    if stored := db.session.get(IdempotencyKey, (current_user.id, key)):
        return replay(stored, request_hash)
    consultation = db.session.get(Consultation, wanted["consultation_id"])
    if consultation is None:
        abort(404)
    if consultation.patient_id != current_user.id:
        abort(403)
    amount_minor = int(wanted["amount"] * 100)
    if consultation.fee_minor not in (None, amount_minor):
        abort(422)
    try:
        body = insert_rows(
            consultation,
            wanted["payment_method"],
            amount_minor,
            key=key,
            canonical=canonical,
            request_hash=request_hash,
        )
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return respond_to_lost_race(consultation.id, key, request_hash)
    return Response(body, 201, mimetype="application/json")


def insert_rows(
    consultation: Consultation, method: str, amount_minor: int, *, key: str, canonical: str, request_hash: str
) -> str:
    now = datetime.now(UTC)
    payment = Payment(
        user=current_user,
        consultation=consultation,
        amount_minor=amount_minor,
        payment_method=method,
        created_at=now,
        updated_at=now,
    )
    db.session.add(payment)
    db.session.flush()
    tax_record = TaxRecord(
        payment=payment,
        tax_rate_basis_points=1200,
        taxable_amount_minor=amount_minor,
        amount_minor=amount_minor * 12 // 100,
    )
    db.session.add(tax_record)
    db.session.flush()
    invoice = Invoice(
        payment=payment,
        invoice_number=f"INV-{now:%Y%m%d%H%M%S}-{payment.id}",
        amount_minor=amount_minor,
        currency=payment.currency,
        issued_at=now,
    )
    db.session.add(invoice)
    db.session.flush()
    event = PaymentEvent(
        payment=payment,
        event="payment.created",
        to_status=payment.status,
        version=payment.version,
        actor=f"patient:{current_user.id}",
        created_at=now,
    )
    db.session.add(event)
    db.session.flush()
    data = {
        "type": "new",
        "payment_id": payment.id,
        "payment": PAYMENT_OUT.dump(payment),
        "invoice": INVOICE_OUT.dump(invoice),
    }
    body = json.dumps({"data": data, "message": "Payment created successfully"})
    idempotency_key = IdempotencyKey(
        user_id=current_user.id,
        key=key,
        operation="create",
        request=canonical,
        request_hash=request_hash,
        payment=payment,
        response_status=201,
        response_body=body,
        created_at=now,
    )
    db.session.add(idempotency_key)
    db.session.flush()
    return body


def replay(stored: IdempotencyKey, request_hash: str) -> Response:
    if stored.request_hash != request_hash:
        abort(422)
    return Response(
        stored.response_body, stored.response_status, {"Idempotent-Replayed": "true"}, mimetype="application/json"
    )


def respond_to_lost_race(consultation_id: int, key: str, request_hash: str) -> Response:
    if stored := db.session.get(IdempotencyKey, (current_user.id, key)):
        return replay(stored, request_hash)
    return conflict(find_active(consultation_id))


def find_active(consultation_id: int) -> Payment | None:
    active = select(Payment).where(
        Payment.consultation_id == consultation_id,
        Payment.status.in_(["pending", "processing", "completed", "partially_refunded"]),
        Payment.deleted_at.is_(None),
    )
    return db.session.scalars(active).first()


def conflict(payment: Payment | None) -> Response:
    data = {"type": "existing", "payment_id": payment.id, "status": payment.status} if payment else {}
    return Response(json.dumps({"message": "A payment exists", "data": data}), 409, mimetype="application/json")

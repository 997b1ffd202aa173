"""Schemas of an invoice and a tax record."""

from marshmallow import Schema, fields

from payments_app.api.enums import Enumeration, EnumField
from payments_app.api.fields import Amount, RateField, UtcDateTimeField
from payments_app.invoices.models import InvoiceStatus, TaxBasis

INVOICE_STATUS = Enumeration.of(
    InvoiceStatus, "void: the payment ended unpaid. refunded: the whole payment was refunded."
)


TAX_BASIS = Enumeration.of(
    TaxBasis, "amount: the tax is tax_rate of the payment's amount. included: the amount contains the tax."
)


class Invoice(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    invoice_number = fields.String(required=True)
    amount = Amount(required=True, attribute="amount_minor")
    currency = fields.String(required=True)
    status = EnumField(INVOICE_STATUS, required=True)
    issued_at = UtcDateTimeField(required=True)
    paid_at = UtcDateTimeField(required=True, allow_none=True)


class TaxRecord(Schema):
    id = fields.Integer(required=True)
    payment_id = fields.Integer(required=True)
    tax_type = fields.String(required=True)
    tax_rate = RateField(required=True, attribute="tax_rate_basis_points")
    tax_basis = EnumField(TAX_BASIS, required=True)
    taxable_amount = Amount(required=True, attribute="taxable_amount_minor")
    amount = Amount(required=True, attribute="amount_minor")
    status = fields.String(required=True)

"""The tables of the payment aggregate: they change together, under the payment's version."""

from payments_app.payments.models import credit_note, dispute, event, gateway_session, payment, refund, status  # noqa: F401

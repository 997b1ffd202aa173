"""The tables of a payment: one aggregate, changed through the payment's own verbs."""

from payments_app.payments.models import dispute, event, gateway_session, payment, refund, status  # noqa: F401

"""What Stripe is told to open a Checkout Session: https://docs.stripe.com/api/checkout/sessions/create."""

from stripe.params.checkout import SessionCreateParams

from payments_app.gateways.base import Charge, SessionRequest

# Seconds: the shortest and longest life of a Checkout Session. Stripe takes 30 minutes to 24 hours, from when it opens
# the session. Three minutes leave room for clocks that differ, and for a call that is repeated.
SESSION_SECONDS = (33 * 60, 24 * 3600 - 3 * 60)

# Our languages as Stripe names them; its page has more.
LOCALES = {"en": "en", "id": "id"}


def metadata_of(charge: Charge) -> dict[str, str]:
    return {"payment_id": str(charge.payment_id), "consultation_id": str(charge.consultation_id)}


def session_params(request: SessionRequest) -> SessionCreateParams:
    """One line for the whole charge. The metadata are on the PaymentIntent too, whose events name no session."""
    charge, metadata = request.charge, metadata_of(request.charge)
    way_back = str(request.return_url)
    params: SessionCreateParams = {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": charge.currency.lower(),
                    "unit_amount": charge.amount_minor,
                    "product_data": {"name": request.description},
                },
            }
        ],
        "client_reference_id": str(charge.payment_id),
        "metadata": metadata,
        "payment_intent_data": {"metadata": {**metadata, "checkout_session": str(request.number)}},
        "success_url": way_back,
        "cancel_url": way_back,
        "locale": LOCALES.get(request.language, "auto"),
    }
    if request.expires_at is not None:
        params["expires_at"] = int(request.expires_at.timestamp())
    return params

"""The sandbox's checkout page, as a gateway would have one: it takes no money, and tells the service that it did.

A signed address is all that it takes, as at a gateway. A pressed button goes the way of a webhook: one event, stored
with its effect in one transaction, and judged by the same rules.
"""

import uuid

from flask import Blueprint, Flask, Response, g, make_response, redirect, render_template, request

from config import Settings, origin_of
from payments_app import clock, money
from payments_app.api.response_headers import page_policy
from payments_app.errors import NotFound
from payments_app.gateway_webhooks.repository import ingest
from payments_app.gateways.base import GatewayName
from payments_app.gateways.registry import find_gateway
from payments_app.gateways.sandbox import PATH, SandboxGateway
from payments_app.i18n.locale import translate
from payments_app.i18n.messages import N_
from payments_app.observability.logging import current_request_id
from payments_app.payments.models.event import AuditContext
from payments_app.sandbox.repository import SandboxCheckout, find_checkout

blueprint = Blueprint("sandbox", __name__, url_prefix=PATH, template_folder="templates", static_folder="static")

TEXTS = {
    "title": N_("Sandbox checkout"),
    "nothing_moves": N_("This is a sandbox: no money moves."),
    "pay": N_("Pay"),
    "decline": N_("Decline"),
    "later": N_("Pay later"),
    "declined": N_("The payment was declined. Nothing was charged."),
    "ended": N_("This checkout has ended."),
    "back": N_("Back"),
}


def init_app(app: Flask) -> None:
    """Register the page if the sandbox is offered, which production does not."""
    settings: Settings = app.config["SETTINGS"]
    if settings.sandbox_offered:
        app.register_blueprint(blueprint)


@blueprint.get("/<token>")
def show_checkout(token: str) -> Response:
    """What is to be paid, with a button for each thing that may come of it.

    Raises:
        NotFound: the address is not signed by this service, or its checkout is gone (404).
    """
    return _page(_find(token), was_declined=False)


@blueprint.post("/<token>")
def press(token: str) -> Response:
    """``do``: ``pay``, ``decline`` or ``later``, which leads back without paying.

    Raises:
        NotFound: the address is not signed by this service, or its checkout is gone (404).
    """
    checkout, action = _find(token), request.form.get("do")
    gateway, context = _gateway(), AuditContext(f"gateway:{GatewayName.SANDBOX}", current_request_id(), clock.now())
    if action not in ("pay", "decline", "later"):
        return _page(checkout, was_declined=False)
    if checkout.is_open and action == "decline":
        event = gateway.declined_event(checkout.charge, checkout.reference, event_id=str(uuid.uuid4()), at=context.at)
        ingest(GatewayName.SANDBOX.value, event, context)
        return _page(checkout, was_declined=True)
    # Pressed twice, the second time finds it ended: both lead back, and the page there says what became of it.
    if checkout.is_open and action == "pay":
        ingest(
            GatewayName.SANDBOX.value, gateway.paid_event(checkout.charge, checkout.reference, at=context.at), context
        )
    response: Response = redirect(checkout.return_url, code=303)  # type: ignore[assignment]  # Flask's, in a Flask app
    response.headers["Content-Security-Policy"] = _policy(checkout)
    return response


def _gateway() -> SandboxGateway:
    gateway = find_gateway(GatewayName.SANDBOX)
    assert isinstance(gateway, SandboxGateway)  # noqa: S101  # for the type checker
    return gateway


def _find(token: str) -> SandboxCheckout:
    reference = _gateway().reference_in(token)
    checkout = None if reference is None else find_checkout(reference)
    if checkout is None:
        raise NotFound
    return checkout


def _page(checkout: SandboxCheckout, *, was_declined: bool) -> Response:
    g.language = checkout.language
    page = render_template(
        "sandbox.html",
        checkout=checkout,
        amount=f"{money.to_text(checkout.charge.amount_minor)} {checkout.charge.currency}",
        was_declined=was_declined,
        texts={name: translate(text) for name, text in TEXTS.items()},
    )
    response = make_response(page, 200 if checkout.is_open else 410)
    response.headers["Content-Security-Policy"] = _policy(checkout)
    response.headers["Cache-Control"] = "no-store"
    return response


def _policy(checkout: SandboxCheckout) -> str:
    """Browsers apply ``form-action`` to where a form is redirected, too."""
    back = origin_of(checkout.return_url)
    return page_policy(images="data:", forms=f"'self' {back}" if back else "'self'")

"""The trial of ``gateways check``: what a gateway really does, as far as it can be seen without money."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from config import Settings
from payments_app import clock
from payments_app.gateways.base import (
    Charge,
    CheckoutSession,
    Declined,
    EventSource,
    Gateway,
    OutcomeUnknown,
    SessionRequest,
    SessionStatus,
)
from payments_app.gateways.capabilities import CheckoutKind
from payments_app.gateways.registry import configured_gateways, find_event_source
from payments_app.health.diagnostics import Diagnostic, Severity

# No payment has this id, and no reader of metadata takes it for one.
NO_PAYMENT = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """A session to be opened for nobody. ``request`` is another one at each trial."""

    gateway: Gateway
    request: SessionRequest

    @classmethod
    def of(cls, gateway: Gateway, settings: Settings, now: datetime) -> "Trial":
        shortest = gateway.capabilities.session_seconds
        charge = Charge(
            payment_id=NO_PAYMENT,
            consultation_id=NO_PAYMENT,
            amount_minor=settings.payment_min_amount_minor,
            currency=settings.payment_currency,
            payment_method=min(gateway.capabilities.methods),
        )
        request = SessionRequest(
            charge=charge,
            number=int(now.timestamp()),
            expires_at=None if shortest is None else (now + timedelta(seconds=shortest[0])).replace(microsecond=0),
            language="en",
            description="Check of the gateway: nothing is to be paid",
            return_url=f"{settings.public_url or 'http://localhost'}/pay/return",
        )
        return cls(gateway, request)

    def steps(self) -> Iterator[Diagnostic]:
        """Open a session, read it, open it again with the same key, and end it."""
        opened = self.gateway.open_session(self.request)
        if not isinstance(opened, CheckoutSession):
            yield _failed("open", "did not open a session", opened)
            return
        yield self._how_to_pay(opened)
        yield self._read(opened)
        again = self.gateway.open_session(self.request)
        yield self._repeated(opened, again)
        references = {opened.reference} | ({again.reference} if isinstance(again, CheckoutSession) else set())
        for reference in sorted(references):
            yield self._ended(reference)

    def _how_to_pay(self, opened: CheckoutSession) -> Diagnostic:
        given = {
            CheckoutKind.REDIRECT: opened.redirect_url,
            CheckoutKind.CLIENT_SECRET: opened.client_secret,
            CheckoutKind.INSTRUCTIONS: opened.instructions,
        }
        kind = self.gateway.capabilities.checkout
        if given[kind] is None:
            return Diagnostic("open", Severity.BAD, f"opened {opened.reference}, but without {kind}")
        return Diagnostic("open", Severity.OK, f"opened {opened.reference}, with {kind}")

    def _read(self, opened: CheckoutSession) -> Diagnostic:
        found = self.gateway.look_up_session(self.request.charge, opened.reference)
        if not isinstance(found, CheckoutSession):
            return _failed("read", "did not give the session", found)
        if (found.reference, found.status) != (opened.reference, SessionStatus.OPEN):
            return Diagnostic("read", Severity.BAD, f"says that the session is {found.reference}, {found.status}")
        return Diagnostic("read", Severity.OK, "says that the session is open")

    def _repeated(self, opened: CheckoutSession, again: CheckoutSession | Declined | OutcomeUnknown) -> Diagnostic:
        if not isinstance(again, CheckoutSession):
            return _failed("repeat", "did not take the same call again", again)
        was_same = again.reference == opened.reference
        seen = "opened one session for two calls with one key" if was_same else "opened two sessions with one key"
        if self.gateway.capabilities.remembers_keys_seconds is None:
            return Diagnostic("repeat", Severity.NOTE, f"{seen}; this service does not rely on its keys")
        return Diagnostic("repeat", Severity.OK if was_same else Severity.BAD, seen)

    def _ended(self, reference: str) -> Diagnostic:
        ended = self.gateway.cancel_session(self.request.charge, reference)
        if not isinstance(ended, CheckoutSession):
            return _failed("end", f"did not end {reference}", ended)
        if ended.status in (SessionStatus.CANCELLED, SessionStatus.EXPIRED):
            return Diagnostic("end", Severity.OK, f"ended {reference}")
        severity = Severity.BAD if self.gateway.capabilities.ends_sessions else Severity.NOTE
        return Diagnostic("end", severity, f"was asked to end {reference}, which is {ended.status}")


def try_gateway(name: str, settings: Settings) -> Iterator[Diagnostic]:
    """Each finding as soon as it is known. A session is opened only with a test key, and ended at once."""
    gateway, source = configured_gateways()[name], find_event_source(name)
    if source is None:
        yield Diagnostic("key", Severity.OK, "no service elsewhere: there is nothing to try")
        return
    match gateway.ping():
        case Declined(reason):
            yield Diagnostic("key", Severity.BAD, f"does not accept {name.upper()}_API_KEY: {reason}")
            return
        case OutcomeUnknown(reason):
            yield Diagnostic("key", Severity.BAD, f"cannot be reached: {reason}")
            return
    yield Diagnostic("key", Severity.OK, f"accepts {name.upper()}_API_KEY, {_mode_of(source)}")
    if source.has_webhook_secret:
        yield Diagnostic("webhooks", Severity.OK, f"{name.upper()}_WEBHOOK_SECRET is set")
    else:
        yield Diagnostic("webhooks", Severity.BAD, f"{name.upper()}_WEBHOOK_SECRET is not set: its events are refused")
    if source.livemode is False:
        with gateway.place():  # for all steps: that it is silent at one of them is a finding, and not the end
            yield from Trial.of(gateway, settings, clock.now()).steps()
    else:
        yield Diagnostic("open", Severity.NOTE, "no session was opened: that is tried with a test key only")


def _mode_of(source: EventSource) -> str:
    return {True: "a live key", False: "a test key", None: "whose mode is not known"}[source.livemode]


def _failed(what: str, did_not: str, outcome: Declined | OutcomeUnknown) -> Diagnostic:
    return Diagnostic(what, Severity.BAD, f"{did_not}: {outcome.reason}")

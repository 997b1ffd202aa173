"""Which requests may call a gateway: its places in this process, and its circuit breaker.

A gateway that is mute answers nothing, and refuses nothing. Without a limit, the requests that wait for it would occupy
every thread, and nobody could pay by another gateway or by hand.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from payments_app.circuit_breaker import CircuitBreaker, CircuitOpen
from payments_app.errors import RETRY_AFTER_SECONDS, GatewayBusy, GatewayUnavailable
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger

log = get_logger(__name__)

# Calls in a row that a gateway left unanswered before no more are made. More than the attempts of one call (three), so
# that one call with bad luck stops no other one; no more than a worker's places (four), so that the first calls which a
# mute gateway holds are the last ones.
OPENS_AFTER = 4

# Seconds between the last unanswered call and the next trial: as long as clients are told to wait, so that one of them
# makes it. A trial occupies one place for as long as its call waits.
COOL_DOWN_SECONDS = RETRY_AFTER_SECONDS


class Places:
    """A bulkhead: ``total`` requests of this process may be in calls to gateways at the same time.

    While another of the ``gateways`` has none, a gateway leaves one place free for it: a mute one cannot take them all.
    """

    def __init__(self, total: int, *, gateways: int = 1) -> None:
        self._total = total
        self._most_of_one = max(1, total - (gateways - 1))
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, gateway: str) -> bool:
        """Whether there was a place; waits for none."""
        with self._lock:
            if self._taken.total() >= self._total or self._taken[gateway] >= self._most_of_one:
                return False
            self._taken[gateway] += 1
            return True

    def give_back(self, gateway: str) -> None:
        with self._lock:
            self._taken[gateway] -= 1


class Admission:
    """One gateway's part of the places, and its breaker, which opens on silence: no connection, or no answer in time.

    An answer is no silence, whatever it says: a declined card or a 500 shows that the gateway speaks.
    """

    def __init__(self, gateway: str, places: Places, *, cool_down_seconds: float = COOL_DOWN_SECONDS) -> None:
        self._gateway = gateway
        self._places = places
        self._breaker = CircuitBreaker(
            cool_down_seconds=cool_down_seconds, opens_after=OPENS_AFTER, on_open=self._opened, on_close=self._closed
        )
        self._thread = threading.local()
        # Exported with 0 from the start: an alert cannot see an increase of a counter that first appears with 1.
        self._in_flight = metrics.GATEWAY_CALLS_IN_FLIGHT.labels(gateway)
        self._is_open = metrics.GATEWAY_BREAKER_OPEN.labels(gateway)
        self._openings = metrics.GATEWAY_BREAKER_OPENINGS.labels(gateway)
        self._refused = {why: metrics.GATEWAY_REFUSALS.labels(gateway, why) for why in ("busy", "silent")}

    @property
    def is_silent(self) -> bool:
        """Whether requests are refused because the gateway did not answer."""
        return self._breaker.is_open

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. In a block of the same thread that holds one it is that one: a request has one for all calls.

        Take it before the first write of an operation: a request that is refused has then changed nothing.

        Raises:
            GatewayUnavailable: the gateway was silent, and the next trial is not due (503).
            GatewayBusy: there is no place (503).
        """
        if getattr(self._thread, "has_place", False):
            yield
            return
        with ExitStack() as held:
            self._take(held)
            self._thread.has_place = True
            try:
                yield
            finally:
                self._thread.has_place = False

    @contextmanager
    def call(self, *silence: type[Exception]) -> Iterator[None]:
        """Around one call over the network, which raises one of ``silence`` if there was no answer.

        Raises:
            GatewayUnavailable, GatewayBusy: as ``place``, if the request has no place yet.
        """
        with self.place():
            try:
                yield
            except silence as error:
                self._breaker.failed(error)
                raise
            self._breaker.succeeded()

    def _take(self, held: ExitStack) -> None:
        try:
            held.enter_context(self._breaker.allowed())
        except CircuitOpen:
            self._refused["silent"].inc()
            raise GatewayUnavailable from None
        if not self._places.take(self._gateway):
            self._refused["busy"].inc()
            raise GatewayBusy
        held.callback(self._places.give_back, self._gateway)
        self._in_flight.inc()
        held.callback(self._in_flight.dec)

    def _opened(self, error: Exception) -> None:
        self._is_open.set(1)
        self._openings.inc()
        log.warning("Gateway: silent", gateway=self._gateway, reason=type(error).__name__)

    def _closed(self) -> None:
        self._is_open.set(0)
        log.warning("Gateway: answers again", gateway=self._gateway)

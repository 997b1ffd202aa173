"""One intention, one answer: the way of every request with an effect, around its transaction."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from payments_app.accounts.repository import require_current
from payments_app.errors import LockTimeout
from payments_app.idempotency import repository
from payments_app.idempotency.request import Answer, KeyedRequest
from payments_app.idempotency.response_cache import find_copy, keep_copy
from payments_app.observability import metrics
from payments_app.observability.logging import event_log

log = event_log(__name__)

Result = TypeVar("Result")
Seen = TypeVar("Seen")


def once(
    keyed: KeyedRequest,
    *,
    lock: AbstractContextManager[None],
    ahead: Callable[[], Seen | Answer],
    work: Callable[[Seen], Answer],
) -> Answer:
    """The answer of ``work``, which is a transaction with its retries, done under the lock of the strategy.

    ``ahead`` comes before the lock: it judges the request and asks the gateway. It gives ``work`` what it has seen, or
    finds that the answer was given already. Redis is asked before and told after, never in between.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    answer = find_copy(keyed)
    if answer is None:
        answer = _first_or_known(keyed, lock=lock, ahead=ahead, work=work)
    else:
        require_current(keyed.caller)  # Redis does not know what has become of the user since
    if answer.replayed:
        tell_duplicate(keyed, "key")
    else:
        keep_copy(keyed, answer)
    return answer


def _first_or_known(
    keyed: KeyedRequest,
    *,
    lock: AbstractContextManager[None],
    ahead: Callable[[], Seen | Answer],
    work: Callable[[Seen], Answer],
) -> Answer:
    seen = ahead()
    return seen if isinstance(seen, Answer) else under_lock(keyed, lock=lock, work=lambda: work(seen))


def under_lock(
    keyed: KeyedRequest, *, lock: AbstractContextManager[None], work: Callable[[], Result]
) -> Result | Answer:
    """The result of ``work``; or, where somebody else held the lock too long, the answer if that was our own twin.

    Raises:
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    try:
        with lock:
            return work()
    except LockTimeout:
        committed = repository.find_committed(keyed)
        if committed is None:
            tell_duplicate(keyed, "lock")
            raise
        return committed


def tell_duplicate(keyed: KeyedRequest, layer: str, **facts: Any) -> None:
    """Count and log a request that would have done something twice, and the layer that stopped it.

    ``key``: it was done before, and is answered as it was then. ``lock``: another one is at the same payment just now.
    ``index``: its consultation has an active payment.
    """
    metrics.DUPLICATES_STOPPED.labels(layer).inc()
    asked = {name: keyed.request[name] for name in ("consultation_id", "payment_id") if name in keyed.request}
    log.info("Payment: duplicate", layer=layer, operation=keyed.operation, key=keyed.key, **(asked | facts))

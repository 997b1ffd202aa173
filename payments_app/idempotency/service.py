"""Runs an idempotent operation: stored response, or prepare, lock, execute, store."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from payments_app.accounts.repository import check_valid
from payments_app.errors import LockTimeout
from payments_app.idempotency import repository
from payments_app.idempotency.request import IdempotentRequest, StoredResponse
from payments_app.idempotency.response_cache import get, put
from payments_app.observability import metrics
from payments_app.observability.logging import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")
Prepared = TypeVar("Prepared")


def run_idempotent(
    request: IdempotentRequest,
    *,
    lock: AbstractContextManager[None],
    prepare: Callable[[], Prepared | StoredResponse],
    execute: Callable[[Prepared], StoredResponse],
) -> StoredResponse:
    """The answer of ``execute``, which is a transaction with its retries, done under the lock of the strategy.

    ``prepare`` runs before the lock: it judges the request and asks the gateway. It returns what ``execute`` needs, or
    the response that was stored already. Redis is read before and written after, never in between. It is not read for
    a payer: a copy does not say which consultation it is of, and the database judges that too.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    response = get(request) if request.caller.link_id is None else None
    if response is None:
        response = _first_or_known(request, lock=lock, prepare=prepare, execute=execute)
    else:
        check_valid(request.caller)  # Redis does not know what has become of the user since
    if response.replayed:
        record_duplicate(request, "key")
    else:
        put(request, response)
    return response


def _first_or_known(
    request: IdempotentRequest,
    *,
    lock: AbstractContextManager[None],
    prepare: Callable[[], Prepared | StoredResponse],
    execute: Callable[[Prepared], StoredResponse],
) -> StoredResponse:
    seen = prepare()
    return seen if isinstance(seen, StoredResponse) else under_lock(request, lock=lock, execute=lambda: execute(seen))


def under_lock(
    request: IdempotentRequest, *, lock: AbstractContextManager[None], execute: Callable[[], Result]
) -> Result | StoredResponse:
    """The result of ``execute``; or, where somebody else held the lock too long, the answer if that was our own twin.

    Raises:
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    try:
        with lock:
            return execute()
    except LockTimeout:
        committed = repository.find_committed(request)
        if committed is None:
            record_duplicate(request, "lock")
            raise
        return committed


def record_duplicate(request: IdempotentRequest, layer: str, **facts: Any) -> None:
    """Count and log a request that would have done something twice, and the layer that stopped it.

    ``key``: it was done before, and is answered as it was then. ``lock``: another one is at the same payment just now.
    ``index``: its consultation has an active payment.
    """
    metrics.DUPLICATES_STOPPED.labels(layer).inc()
    asked = {name: request.parameters[name] for name in ("consultation_id", "payment_id") if name in request.parameters}
    log.info("Payment: duplicate", layer=layer, operation=request.operation, key=request.key, **(asked | facts))

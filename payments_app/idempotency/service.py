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
    """The response of ``execute``, which is one transaction with its retries, run under the configured lock.

    ``prepare`` runs before the lock: it checks the request and calls the gateway. It returns the input of ``execute``,
    or a response that is stored already. Redis is read before and written after, never in between. For a
    payer Redis is not read: a copy does not name its consultation, so the database judges the request.

    Raises:
        NotAuthenticated: the user was disabled or their tokens ended (401).
        Forbidden: the user no longer has the role that the token names (403).
        LockTimeout: the lock was not acquired in time, and the same request was not processed meanwhile (409,
            retryable).
    """
    response = get(request) if request.caller.link_id is None else None
    if response is None:
        response = _first_or_known(request, lock=lock, prepare=prepare, execute=execute)
    else:
        check_valid(request.caller)  # the user may have been disabled since; Redis does not know
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
    prepared = prepare()
    return (
        prepared
        if isinstance(prepared, StoredResponse)
        else under_lock(request, lock=lock, execute=lambda: execute(prepared))
    )


def under_lock(
    request: IdempotentRequest, *, lock: AbstractContextManager[None], execute: Callable[[], Result]
) -> Result | StoredResponse:
    """The result of ``execute``. If the lock times out, the response of the same request, if that has committed.

    Raises:
        LockTimeout: the lock was not acquired in time, and the same request was not processed meanwhile (409,
            retryable).
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
    """Count and log a duplicate request, and the layer that stopped it.

    ``key``: it was processed before, and its response is replayed. ``lock``: another request holds the lock of the same
    payment. ``index``: its consultation has an active payment.
    """
    metrics.DUPLICATES_STOPPED.labels(layer).inc()
    ids = {name: request.parameters[name] for name in ("consultation_id", "payment_id") if name in request.parameters}
    log.info("Payment: duplicate", layer=layer, operation=request.operation, key=request.key, **(ids | facts))

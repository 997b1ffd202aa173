"""One intention, one answer: the way of every request with an effect, around its transaction."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from payments_app.errors import LockTimeout
from payments_app.idempotency import repository
from payments_app.idempotency.copies import find_copy, keep_copy
from payments_app.idempotency.keyed import Answer, KeyedRequest


def once(keyed: KeyedRequest, *, lock: AbstractContextManager[None], work: Callable[[], Answer]) -> Answer:
    """The answer of ``work``, which is a transaction with its retries, done under the lock of the strategy.

    Redis is asked before and told after, never in between.

    Raises:
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    copy = find_copy(keyed)
    if copy is not None:
        return copy
    try:
        with lock:
            answer = work()
    except LockTimeout:
        # Whoever held the lock may have been our own twin.
        committed = repository.find_committed(keyed)
        if committed is None:
            raise
        return committed
    if not answer.replayed:
        keep_copy(keyed, answer)
    return answer

"""One intention, one answer: the way of every request with an effect, around its transaction."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from payments_app.errors import LockTimeout
from payments_app.idempotency import repository
from payments_app.idempotency.copies import find_copy, keep_copy
from payments_app.idempotency.keyed import Answer, KeyedRequest

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
        LockTimeout: the lock was not had in time, and nobody did the work meanwhile (409, retryable).
    """
    known = find_copy(keyed)
    if known is not None:
        return known
    seen = ahead()
    if isinstance(seen, Answer):
        return seen
    answer = under_lock(keyed, lock=lock, work=lambda: work(seen))
    if not answer.replayed:
        keep_copy(keyed, answer)
    return answer


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
            raise
        return committed

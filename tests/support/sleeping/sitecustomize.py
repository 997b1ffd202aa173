"""For processes under libfaketime, which up to 0.9.10 refuses to sleep by a clock that it was told to leave alone.

``time.sleep`` does that since Python 3.11 (EINVAL); ``select`` waits just as long without naming a clock.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep  # type: ignore[assignment]  # its own argument has no name

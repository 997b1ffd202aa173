"""For processes under libfaketime, which up to 0.9.10 cannot sleep by a clock that it was told not to fake.

``time.sleep`` uses such a clock since Python 3.11 and fails (EINVAL); ``select`` waits as long without naming a clock.
"""

import select
import time


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = sleep  # type: ignore[assignment]  # its own argument has no name

"""For processes under libfaketime, which up to 0.9.10 refuses to sleep by a clock that it was told to leave alone.

``time.sleep`` does that since Python 3.11 (EINVAL); ``select`` waits just as long without naming a clock.
"""

import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None  # type: ignore[assignment,func-returns-value]

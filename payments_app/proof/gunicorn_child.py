"""``python -m payments_app.proof.gunicorn_child PID ...``: gunicorn, which stops as soon as the process that started it
has ended, however it ended.
"""

import ctypes
import os
import signal
import sys

# From linux/prctl.h: the signal that we get when our parent ends. It outlives the exec below.
_PR_SET_PDEATHSIG = 1


def main(parent: int, arguments: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before it could be told
        sys.exit("whoever started this is gone")
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments])  # noqa: S606  # our own interpreter


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""``python -m payments_app.proof.gunicorn_child PID ...``: a gunicorn that stops as soon as its parent process ends,
even if the parent was killed.
"""

import ctypes
import os
import signal
import sys

# From linux/prctl.h: sets the signal that this process gets when its parent ends. It stays set after the exec below.
_PR_SET_PDEATHSIG = 1


def main(parent: int, arguments: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before prctl
        sys.exit("the parent process has ended")
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments])  # noqa: S606  # our own interpreter


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

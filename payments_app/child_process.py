"""``python child_process.py PID MODULE ...``: runs a module of Python, which stops as soon as its parent process ends,
even if the parent was killed.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# From linux/prctl.h: sets the signal that this process gets when its parent ends. It stays set after the exec below.
_PR_SET_PDEATHSIG = 1


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as a child of this process, in any folder."""
    # -P: the folder of this file has modules of ours, whose names are not to hide others.
    return [sys.executable, "-P", str(Path(__file__)), str(os.getpid()), module, *arguments]


def main(parent: int, arguments: Sequence[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before prctl
        sys.exit("the parent process has ended")
    os.execv(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606  # our own interpreter


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""A disk that is soon full."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # nothing of a fixed name is made there

# What an empty PostgreSQL and two segments of its log take is about 60 MB. Containers have so much in /dev/shm, of
# which a test may fill what is left; far more belongs to a machine that has other things to do with it.
SMALL_BYTES = 256 * 1024**2


class SmallDisk:
    """A folder that holds so much and no more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte of it is left to anybody when the block begins; whatever comes of that, there is room again."""
        try:
            with self._ballast.open("wb", buffering=0) as ballast, suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            yield
        finally:
            self._ballast.unlink()


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """One that is mounted, where that is allowed; or else what a container has in /dev/shm."""
    folder = Path(tempfile.mkdtemp(prefix="payments-small-disk-"))
    size = f"size={SMALL_BYTES}"
    mounted = os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False)
    try:
        if mounted and mounted.returncode == 0:
            yield SmallDisk(folder)
        elif shutil.disk_usage(SHARED_MEMORY).total <= SMALL_BYTES:
            with tempfile.TemporaryDirectory(prefix="payments-small-disk-", dir=SHARED_MEMORY) as name:
                yield SmallDisk(Path(name))
        else:
            pytest.skip("no disk that may be filled: neither may this user mount one, nor is /dev/shm a small one")
    finally:
        if mounted and mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()

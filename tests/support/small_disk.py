"""A small disk that a test can fill."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # only files with random names are made there

# An empty PostgreSQL and two segments of its WAL take about 60 MB. A container's /dev/shm is often that small, and a
# test may fill it; a larger one is shared with other programs and is not filled.
SMALL_BYTES = 256 * 1024**2


class SmallDisk:
    """A folder on the small disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """While the block runs, the disk is full; afterwards there is room again."""
        try:
            with self._ballast.open("wb", buffering=0) as ballast, suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            yield
        finally:
            self._ballast.unlink()


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """A tmpfs if this user may mount one, or else a small /dev/shm; otherwise the test is skipped."""
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
            pytest.skip("no disk that may be filled: this user cannot mount one, and /dev/shm is not small")
    finally:
        if mounted and mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()

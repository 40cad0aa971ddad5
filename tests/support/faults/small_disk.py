"""A file system of a few MiB, mounted for a test, which can be filled and made read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from cryostore.core.limits import KIB, MIB

FILLER_STEPS_BYTES = (MIB, 64 * KIB, 4 * KIB)


class SmallDisk:
    """A small file system at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def bytes_under(self, folder: str = "") -> int:
        """Return the bytes that the files in a folder take, without deleted open ones."""
        return sum(entry.stat().st_blocks * 512 for entry in (self.path / folder).rglob("*") if entry.is_file())

    @property
    def hidden_bytes(self) -> int:
        """Return the bytes that deleted open files and the file system itself take."""
        status = os.statvfs(self.path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize - self.bytes_under()

    def fill(self, *, but_bytes: int = 0) -> None:
        """Fill the disk with a file, except for some bytes."""
        with self.filler.open("ab", buffering=0) as file:
            for step in FILLER_STEPS_BYTES:
                with contextlib.suppress(OSError):
                    while self.free_bytes - but_bytes >= step:
                        file.write(bytes(step))

    def clear(self) -> None:
        """Remove the file of `fill`."""
        self.filler.unlink(missing_ok=True)


def can_mount() -> bool:
    """Return whether this process may mount file systems."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


@contextlib.contextmanager
def small_disk(path: Path, size_mib: float):
    """Mount a small disk at `path`. Skips the test, by this name, where mounting is not allowed."""
    if not can_mount():
        pytest.skip("needs root, to mount a small disk")
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={round(size_mib * 1024)}k,mode=0700", "tmpfs", str(path)], check=True
    )
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def read_only(path: Path):
    """Refuse to open files below `path` for writing, like a file system that is read-only after errors."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

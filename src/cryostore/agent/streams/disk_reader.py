"""Reader of a block device or a disk image, block by block.

A block that cannot be read is read again sector by sector. Sectors that are still unreadable become zeros, and their
places are returned.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryostore.agent.errors import SourceError
from cryostore.core.memory import unfilled

SECTOR_BYTES = 512
BAD_SECTOR_ERRORS = (errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO)
"""Errors of a disk for a place that it cannot read. Any other error is a failure of the whole disk."""

PositionalRead = Callable[[int, list[memoryview], int], int]
"""Signature of os.preadv."""


@contextmanager
def opened_disk(path: bytes, preadv: PositionalRead = os.preadv) -> Iterator[DiskReader]:
    """Open a disk for reading. Raises SourceError if it cannot be opened or is of another kind.

    The kind is checked before the open, because opening a FIFO could block, and again after it.
    """
    try:
        _check_kind(os.stat(path), path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise SourceError.of(path, error) from error
    try:
        _check_kind(os.fstat(fd), path)
        yield DiskReader(fd, path, _size(fd, path), preadv)
    finally:
        os.close(fd)


def _check_kind(status: os.stat_result, path: bytes) -> None:
    if stat.S_ISFIFO(status.st_mode):
        raise SourceError(path, "a FIFO is not a disk; use --stdin to back up a stream")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise SourceError(path, "is neither a block device nor a file")


def _size(fd: int, path: bytes) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError.of(path, error) from error


@dataclass(frozen=True, slots=True)
class DiskReader:
    """An open disk that several threads may read."""

    fd: int
    path: bytes
    size: int
    preadv: PositionalRead

    def next_data(self, offset: int) -> int:
        """Return the offset of the next byte that is not in a hole; the size of the disk if there is none."""
        try:
            return min(os.lseek(self.fd, offset, os.SEEK_DATA), self.size)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset  # a disk without SEEK_DATA has no holes

    def read(self, offset: int, length: int) -> tuple[bytearray, list[tuple[int, int]]]:
        """Return a block, and offset and length of each unreadable part, which is zeros. Raises SourceError."""
        data = unfilled(length)
        view = memoryview(data)
        try:
            self._fill(view, offset)
        except OSError as error:
            if error.errno not in BAD_SECTOR_ERRORS:
                raise SourceError.of(self.path, error) from error
            return data, list(self._read_sectors(view, offset))
        return data, []

    def _read_sectors(self, view: memoryview, offset: int) -> Iterator[tuple[int, int]]:
        bad_from = -1
        for at in range(0, len(view), SECTOR_BYTES):
            part = view[at : at + SECTOR_BYTES]
            try:
                self._fill(part, offset + at)
            except OSError as error:
                if error.errno not in BAD_SECTOR_ERRORS:
                    raise SourceError.of(self.path, error) from error
                part[:] = bytes(len(part))
                bad_from = at if bad_from < 0 else bad_from
                continue
            if bad_from >= 0:
                yield offset + bad_from, at - bad_from
                bad_from = -1
        if bad_from >= 0:
            yield offset + bad_from, len(view) - bad_from

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = self.preadv(self.fd, [view], offset)
            if not count:
                raise SourceError(self.path, "became shorter while it was read")
            view = view[count:]
            offset += count

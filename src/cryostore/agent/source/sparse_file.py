"""Data segments and holes of a sparse source file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from cryostore.agent.block import ENTRY_BYTES_MAX
from cryostore.agent.errors import SourceError
from cryostore.core import interrupts

HOLES_MAX = ENTRY_BYTES_MAX // 16


def data_segments(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Offset and length of each stretch of data between the holes of a file.

    None if the file system does not tell. If there are more than HOLES_MAX holes, the shorter ones count as data.
    """
    found: list[tuple[int, int]] = []
    hole_bytes_min = 1
    try:
        for offset, length in _seek_segments(fd, size):
            interrupts.check()
            _append(found, offset, length, hole_bytes_min)
            while len(found) > HOLES_MAX:
                hole_bytes_min *= 2
                held, found = found, []
                for each in held:
                    _append(found, *each, hole_bytes_min)
    except OSError:
        return None  # the bytes of the file can still be read
    return found


def _append(segments: list[tuple[int, int]], offset: int, length: int, hole_bytes_min: int) -> None:
    """Add a segment. Join it to the last one if the hole between them is shorter than `hole_bytes_min`."""
    if segments and offset - sum(segments[-1]) < hole_bytes_min:
        start = segments.pop()[0]
        length += offset - start
        offset = start
    segments.append((offset, length))


def _seek_segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start >= size or end <= start:
            return
        yield start, end - start
        at = end


def holes_between(segments: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Offset and length of each hole of a file of `size` bytes with these data segments."""
    holes = []
    at = 0
    for offset, length in [*segments, (size, 0)]:
        if offset > at:
            holes.append((at, offset - at))
        at = offset + length
    return holes


class SegmentReader:
    """Reads the data segments of a file as one stream.

    If the file was cut meanwhile, its missing bytes are read as zeros, and `is_whole` becomes False.
    """

    def __init__(self, fd: int, path: bytes, segments: list[tuple[int, int]], count: Callable[[int], None]) -> None:
        """`count` is called with the number of bytes of each read."""
        self._count = count
        self._fd = fd
        self._path = path
        self._segments = segments
        self.is_whole = True

    def read(self, view: memoryview) -> int:
        """Fill `view` from the file and return the number of bytes; fewer only at the end. Raises SourceError."""
        filled = 0
        while self._segments and filled < len(view):
            offset, length = self._segments[0]
            part = view[filled : filled + length]
            try:
                got = os.preadv(self._fd, [part], offset)
            except OSError as error:
                raise SourceError.of(self._path, error) from error
            self._count(got)
            if not got:
                self.is_whole = False
                got = len(part)
                part[:] = bytes(got)
            filled += got
            if got == length:
                self._segments.pop(0)
            else:
                self._segments[0] = (offset + got, length - got)
        return filled

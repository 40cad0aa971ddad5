"""Writer of a disk image to a file or block device, from several threads.

An existing target is written in place: only the disk blocks that differ from the archive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from cryostore.agent.archive.disk_image import DiskImage
from cryostore.agent.errors import DAMAGE
from cryostore.agent.report import Report
from cryostore.agent.restore.sparse_files import is_zero, pread_all, pwrite_all, write_zeros
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

THREADS = 4
IN_FLIGHT_MAX = 8
ZEROS_BYTES = 1024 * MIB
ZEROS_PARTS = 65536


@dataclass(frozen=True, slots=True)
class _Part:
    """A disk block with its chunk, or without a chunk a range of zeros."""

    offset: int
    length: int
    chunk: Chunk | None


def _parts(image: DiskImage) -> Iterator[_Part]:
    layout = image.layout
    at = 0
    for number in layout.segments:
        for index, chunk in sorted(image.segment(number).items()):
            offset = number * layout.segment_bytes + index * layout.block_bytes
            yield from _zeros(image, at, offset)
            yield _Part(offset, chunk.length, chunk)
            at = offset + chunk.length
    yield from _zeros(image, at, image.size)


def _zeros(image: DiskImage, start: int, end: int) -> Iterator[_Part]:
    """Divide a range of zeros into parts: short enough that an interrupt need not wait, long enough to be few."""
    step = max(ZEROS_BYTES, image.size // ZEROS_PARTS)
    for at in range(start, end, step):
        yield _Part(at, min(step, end - at), None)


def write_disk_image(image: DiskImage, path: bytes, fd: int, report: Report, *, compare: bool, is_new: bool) -> None:
    """Write the disk blocks of an image to an open file or device. Count in `report`; damage is an issue of `path`.

    With `compare`, disk blocks that the target has already are not written. `is_new` means that the target is all
    zeros; then a damaged block raises, and the caller removes the target. Raises OSError.
    """

    def put(part: _Part) -> int:
        if part.chunk is None:
            if not is_new and not (compare and is_zero(fd, part.offset, part.length)):
                write_zeros(fd, part.offset, part.length)
            return 0
        if compare and image.holds(part.chunk, pread_all(fd, part.offset, part.length)):
            return 0
        pwrite_all(fd, image.read(part.offset, part.length), part.offset)
        return part.length

    def done(part: _Part, future: Future[int]) -> None:
        try:
            report.new_bytes += task_result(future)
        except DAMAGE as error:
            if is_new:
                raise
            report.issue(path, error.message)
            return
        report.file_bytes += part.length

    _each_part(image, put, done)


def _each_part(image: DiskImage, put: Callable[[_Part], int], done: Callable[[_Part, Future[int]], None]) -> None:
    """Write the parts of a disk by several threads; call `done` for each in this thread."""
    with Threads(THREADS, "disk") as threads:
        in_flight: deque[tuple[_Part, Future[int]]] = deque()
        for part in _parts(image):
            in_flight.append((part, threads.submit(put, part)))
            if len(in_flight) >= IN_FLIGHT_MAX:
                done(*in_flight.popleft())
        while in_flight:
            done(*in_flight.popleft())

"""Verification of a disk image: its segments are listed, and with `data` every disk block is read."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from itertools import islice

from cryostore.agent.archive.disk_image import disk_layout, segment_chunks, segment_name
from cryostore.agent.archive.listing import archive_entries
from cryostore.agent.archive.reader import Archive
from cryostore.agent.errors import DAMAGE
from cryostore.agent.report import Report
from cryostore.agent.verification.known_damage import KnownDamage
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

THREADS = 4
IN_FLIGHT_MAX = 8


def verify_disk_image(archive: Archive, report: Report, *, data: bool, damage: KnownDamage) -> None:
    """Check all segments; each problem is an issue. Raises as `verify_archive` does."""
    layout = disk_layout(archive)
    path = b""
    found = list(islice(archive_entries(archive), 2))
    for entry in found:
        path = entry.path
        report.entries += 1
        report.files += entry.row.is_file
    if len(found) != 1 or not found[0].row.is_file or found[0].row.size != layout.disk_bytes:
        report.issue(path, f"the archive of a disk of {layout.disk_bytes} bytes does not have one file of that size")
    with Threads(THREADS, "verify") as threads:
        for number in layout.segments:
            try:
                blocks = segment_chunks(archive, layout, number)
            except DAMAGE as error:
                report.issue(path, error.message)
                continue
            if data:
                _read_chunks(archive, report, path, blocks, threads)
            else:
                for index in blocks:
                    if damage.contains(segment_name(number), index):
                        offset = number * layout.segment_bytes + index * layout.block_bytes
                        report.issue(path, f"the store reports that the block at byte {offset} is damaged or lost")
            report.file_bytes = min((number + 1) * layout.segment_bytes, layout.disk_bytes)
    report.file_bytes = layout.disk_bytes


def _read_chunks(archive: Archive, report: Report, path: bytes, blocks: dict[int, Chunk], threads: Threads) -> None:
    in_flight: deque[Future[str | None]] = deque()
    for _, chunk in sorted(blocks.items()):
        in_flight.append(threads.submit(_check_chunk, archive, chunk))
        report.read_bytes += chunk.length
        if len(in_flight) >= IN_FLIGHT_MAX:
            _report(report, path, task_result(in_flight.popleft()))
    while in_flight:
        _report(report, path, task_result(in_flight.popleft()))


def _report(report: Report, path: bytes, fault: str | None) -> None:
    if fault is not None:
        report.issue(path, fault)


def _check_chunk(archive: Archive, chunk: Chunk) -> str | None:
    try:
        archive.chunk_buffer(chunk)
    except (*DAMAGE, KeyUnavailableError) as error:
        return error.message
    return None

"""A run of `cryo restore` for an archive of one file: to a file, a block device, or whatever takes bytes in order.

A new file takes its place when it is complete. A device, and with it a disk's image that exists already, is written in
place: only what differs, unless all is to be written. The user may name the target through a symlink, or name a pipe or
a device; what has a name out of the archive in a folder is neither followed nor written into.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from cryostore.agent.archive.disk_image import DiskImage
from cryostore.agent.archive.files import PART_BYTES, ArchiveFiles, ReadableFile, file_parts
from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.errors import DAMAGE, TargetError
from cryostore.agent.report import Report
from cryostore.agent.restore.attributes import CHANGED
from cryostore.agent.restore.sparse_files import write_zeros
from cryostore.agent.restore.tree_restore import Overwrite
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.core.interrupts import waiting
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, result
from cryostore.model.chunks import Chunk

THREADS = 4
UNDER_WAY_MAX = 8
ZEROS_BYTES = 1024 * MIB
ZEROS_PARTS = 65536
NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFileRestoreOptions:
    """Where the file goes, and what to do about what stands there."""

    target: bytes
    overwrite: Overwrite = "changed"
    dry_run: bool = False


def restore_file(
    files: ArchiveFiles,
    entry: ArchiveEntry,
    options: SingleFileRestoreOptions,
    report: Report,
    *,
    new_id: NewId = random_id,
) -> None:
    """Restore the file of an entry to a path, into a folder under its own name, or onto a device. Count in `report`.

    Damage is an issue that names the byte: no new file takes its place then, a pipe or a stream on a device ends there,
    and a disk that is written in place keeps its old bytes in the damaged blocks alone.

    Raises ConfigurationError if the target cannot hold it, TargetError if it cannot be written, and what the store
    raises.
    """
    path = options.target
    in_folder = os.path.isdir(path)
    if in_folder:
        path = os.path.join(path, os.path.basename(entry.path))
    report.files = report.entries = 1
    report.total_bytes = entry.row.size
    report.current = entry.path
    standing = _standing(path, in_folder=in_folder)
    if standing is not None and not _replace(entry, standing, options.overwrite, in_folder=in_folder):
        report.unchanged = 1
        report.file_bytes = entry.row.size
        return
    report.new = 1
    if options.dry_run:
        report.file_bytes = report.new_bytes = entry.row.size
        return
    if standing is not None and stat.S_ISREG(standing.st_mode):
        path = path if in_folder else os.path.realpath(path)  # what a symlink names is replaced, not the symlink
    elif in_folder:
        standing = None  # whatever stands there makes room as a whole
    try:
        _write(files.open(entry), entry, path, standing, options, report, new_id)
    except OSError as error:
        raise TargetError.of(path, error) from error
    except DAMAGE as error:
        report.new = 0
        report.issue(entry.path, error.message)


def _standing(path: bytes, *, in_folder: bool) -> os.stat_result | None:
    """The status of what is at the path. Raises ConfigurationError if the user named what can never be opened."""
    try:
        standing = os.stat(path, follow_symlinks=not in_folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError.of(path, error) from error
    if not in_folder and stat.S_ISSOCK(standing.st_mode):
        raise ConfigurationError(
            f"{os.fsdecode(path)!a} is a socket, which cannot be opened",
            hint="name a file, a folder, a pipe or a block device",
        )
    return standing


def _replace(entry: ArchiveEntry, standing: os.stat_result, overwrite: Overwrite, *, in_folder: bool) -> bool:
    if overwrite == "never":
        return False
    if not stat.S_ISREG(standing.st_mode) and not in_folder:
        if overwrite == "newer":
            raise ConfigurationError("a device has no time that says what is newer", hint="say --overwrite changed")
        return True
    if overwrite == "newer":
        return entry.row.mtime_ns > standing.st_mtime_ns
    same = (entry.row.size, entry.row.mtime_ns) == (standing.st_size, standing.st_mtime_ns)
    return overwrite == "always" or not same or not stat.S_ISREG(standing.st_mode)


def _write(
    file: ReadableFile,
    entry: ArchiveEntry,
    path: bytes,
    standing: os.stat_result | None,
    options: SingleFileRestoreOptions,
    report: Report,
    new_id: NewId,
) -> None:
    if standing is not None and stat.S_ISBLK(standing.st_mode):
        _onto_device(file, entry, path, standing, options, report)
    elif standing is not None and not stat.S_ISREG(standing.st_mode):
        _into_pipe(file, path, standing, report)
    elif standing is not None and isinstance(file, DiskImage):
        fd = _opened(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, standing)
        try:
            os.ftruncate(fd, file.size)
            _blocks(file, entry, fd, report, compare=options.overwrite != "always", fresh=False)
            _settle(fd, entry, report)
        finally:
            os.close(fd)
    else:
        _to_new_file(file, entry, path, report, new_id)


def _opened(path: bytes, flags: int, standing: os.stat_result) -> int:
    """Open what was found at a path. Raises OSError if it is something else by now."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not os.path.samestat(found, standing):
        os.close(fd)
        raise OSError(errno.ESTALE, CHANGED)
    return fd


def _onto_device(
    file: ReadableFile,
    entry: ArchiveEntry,
    path: bytes,
    standing: os.stat_result,
    options: SingleFileRestoreOptions,
    report: Report,
) -> None:
    fd = _opened(path, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK, standing)  # refused while the device is mounted
    try:
        room = os.lseek(fd, 0, os.SEEK_END)
        if file.size > room:
            raise ConfigurationError(
                f"{os.fsdecode(path)!a} has {room} bytes, and {file.size} are needed: nothing was written"
            )
        if isinstance(file, DiskImage):
            _blocks(file, entry, fd, report, compare=options.overwrite != "always", fresh=False)
        else:
            _sequence(file, fd, report)
        os.fsync(fd)
        if file.size < room:
            report.skipped[f"{room - file.size} bytes at the end of the device are left as they were"] += 1
    finally:
        os.close(fd)


def _into_pipe(file: ReadableFile, path: bytes, standing: os.stat_result, report: Report) -> None:
    with waiting:  # for somebody who reads
        fd = _opened(path, os.O_WRONLY | os.O_NOCTTY, standing)
    try:
        _sequence(file, fd, report)
    finally:
        os.close(fd)


def _sequence(file: ReadableFile, fd: int, report: Report) -> None:
    for part in file_parts(file):
        write_out(fd, part)
        report.file_bytes += len(part)
        report.new_bytes += len(part)


def write_out(fd: int, data: bytes) -> None:
    """Write all of the data to what may let us wait: an interrupt comes at once. Raises OSError."""
    view = memoryview(data)
    while view:
        with waiting:
            written = os.write(fd, view)
        view = view[written:]


def _to_new_file(file: ReadableFile, entry: ArchiveEntry, path: bytes, report: Report, new_id: NewId) -> None:
    above, name = os.path.split(path)
    temporary = f".cryo-restore-{new_id()[:8].lower()}".encode()
    folder = os.open(above or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = os.open(temporary, NEW_FLAGS, 0o600, dir_fd=folder)
        try:
            os.ftruncate(fd, file.size)
            if isinstance(file, DiskImage):
                _blocks(file, entry, fd, report, compare=False, fresh=True)
            else:
                _segments(file, fd, report)
            _settle(fd, entry, report)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        _sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(folder)


def _sync_folder(folder: int) -> None:
    """Make a new name in a folder durable, if this user may read the folder and its file system can do that."""
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _segments(file: ReadableFile, fd: int, report: Report) -> None:
    for start, length in file.segments():
        for offset in range(start, start + length, PART_BYTES):
            part = file.read(offset, min(PART_BYTES, start + length - offset))
            _pwrite(fd, part, offset)
            report.new_bytes += len(part)
            report.file_bytes = offset + len(part)
    report.file_bytes = file.size


def _settle(fd: int, entry: ArchiveEntry, report: Report) -> None:
    try:
        os.utime(fd, ns=(entry.row.mtime_ns, entry.row.mtime_ns))
    except OSError as error:  # the content counts first
        report.issue(entry.path, f"the modification time cannot be set: {error.strerror}")
    os.fsync(fd)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of a disk, or with no chunk a row of blocks that are zeros."""

    offset: int
    length: int
    chunk: Chunk | None


def _parts(file: DiskImage) -> Iterator[_Part]:
    layout = file.layout
    at = 0
    for number in layout.segments:
        for index, chunk in sorted(file.segment(number).items()):
            offset = number * layout.segment_bytes + index * layout.block_bytes
            yield from _zeros(file, at, offset)
            yield _Part(offset, chunk.length, chunk)
            at = offset + chunk.length
    yield from _zeros(file, at, file.size)


def _zeros(file: DiskImage, start: int, end: int) -> Iterator[_Part]:
    """A row of zeros in parts: not so long that an interrupt waits, and not more than there is time for."""
    step = max(ZEROS_BYTES, file.size // ZEROS_PARTS)
    for at in range(start, end, step):
        yield _Part(at, min(step, end - at), None)


def _blocks(file: DiskImage, entry: ArchiveEntry, fd: int, report: Report, *, compare: bool, fresh: bool) -> None:
    """Write the blocks of a disk in place. `fresh` means that the target is zeros, and goes if a block is damaged."""

    def put(part: _Part) -> int:
        if part.chunk is None:
            if not fresh and not (compare and _is_zero(fd, part)):
                write_zeros(fd, part.offset, part.length)
            return 0
        if compare and file.holds(part.chunk, _pread(fd, part.offset, part.length)):
            return 0
        _pwrite(fd, file.read(part.offset, part.length), part.offset)
        return part.length

    def done(part: _Part, future: Future[int]) -> None:
        try:
            report.new_bytes += result(future)
        except DAMAGE as error:
            if fresh:
                raise
            report.issue(entry.path, error.message)
            return
        report.file_bytes += part.length

    _each_part(file, put, done)


def _each_part(file: DiskImage, put: Callable[[_Part], int], done: Callable[[_Part, Future[int]], None]) -> None:
    """Put the parts of a disk by several threads; tell of each that is done in this one."""
    with Threads(THREADS, "disk") as threads:
        under_way: deque[tuple[_Part, Future[int]]] = deque()
        for part in _parts(file):
            under_way.append((part, threads.submit(put, part)))
            if len(under_way) >= UNDER_WAY_MAX:
                done(*under_way.popleft())
        while under_way:
            done(*under_way.popleft())


def _pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def _is_zero(fd: int, part: _Part) -> bool:
    """Whether a row of blocks is zeros already. What is in a hole is not read."""
    at, end = part.offset, part.offset + part.length
    while at < end:
        try:
            at = max(at, os.lseek(fd, at, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return True
        data = _pread(fd, at, min(PART_BYTES, end - at)) if at < end else b""
        if data.count(0) != len(data):
            return False
        at += len(data) or end
    return True

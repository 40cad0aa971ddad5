"""Restore run of a single file, such as a stream or disk image: to a file, a block device, or a pipe.

A new file is renamed into place when it is complete. A disk image is written to a block device, and over an existing
image, in place: only the blocks that differ, unless all are to be written. The user may name the target through a
symlink, or name a pipe or device. An entry whose name in a folder comes from the archive is neither followed nor
written into.
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
from cryostore.agent.restore.sparse_files import is_zero, pread_all, pwrite_all, write_zeros
from cryostore.agent.restore.tree_restore import Overwrite
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import NewId, random_id
from cryostore.core.interrupts import interruptible
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
THREADS = 4
IN_FLIGHT_MAX = 8
ZEROS_BYTES = 1024 * MIB
ZEROS_PARTS = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFileRestoreOptions:
    """The target of the file, and how to treat an existing entry there."""

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

    Damage is an issue that names the byte: a new file does not appear then, a pipe or a stream on a device ends there,
    and a disk that is written in place keeps its old bytes in the damaged blocks only. Raises ConfigurationError if the
    target cannot hold the file, TargetError if it cannot be written, and what the store raises.
    """
    path = options.target
    in_folder = os.path.isdir(path)
    if in_folder:
        path = os.path.join(path, os.path.basename(entry.path))
    report.files = report.entries = 1
    report.total_bytes = entry.row.size
    report.current = entry.path
    existing = _existing_status(path, in_folder=in_folder)
    if existing is not None and not _replace(entry, existing, options.overwrite, in_folder=in_folder):
        report.unchanged = 1
        report.file_bytes = entry.row.size
        return
    report.new = 1
    if options.dry_run:
        report.file_bytes = report.new_bytes = entry.row.size
        return
    if existing is not None and stat.S_ISREG(existing.st_mode):
        path = path if in_folder else os.path.realpath(path)  # replace the symlink's target, not the symlink
    elif in_folder:
        existing = None  # the existing entry is replaced as a whole
    try:
        _write_file(files.open(entry), entry, path, existing, options, report, new_id)
    except OSError as error:
        raise TargetError.of(path, error) from error
    except DAMAGE as error:
        report.new = 0
        report.issue(entry.path, error.message)


def _existing_status(path: bytes, *, in_folder: bool) -> os.stat_result | None:
    """Return the status of the entry at the path, None if there is none.

    Raises ConfigurationError if the user named a socket, which cannot be opened.
    """
    try:
        existing = os.stat(path, follow_symlinks=not in_folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError.of(path, error) from error
    if not in_folder and stat.S_ISSOCK(existing.st_mode):
        raise ConfigurationError(
            f"{os.fsdecode(path)!a} is a socket, which cannot be opened",
            hint="name a file, a folder, a pipe or a block device",
        )
    return existing


def _replace(entry: ArchiveEntry, existing: os.stat_result, overwrite: Overwrite, *, in_folder: bool) -> bool:
    if overwrite == "never":
        return False
    if not stat.S_ISREG(existing.st_mode) and not in_folder:
        if overwrite == "newer":
            raise ConfigurationError(
                "--overwrite newer does not apply to a device: it has no modification time",
                hint="use --overwrite changed",
            )
        return True
    if overwrite == "newer":
        return entry.row.mtime_ns > existing.st_mtime_ns
    same = (entry.row.size, entry.row.mtime_ns) == (existing.st_size, existing.st_mtime_ns)
    return overwrite == "always" or not same or not stat.S_ISREG(existing.st_mode)


def _write_file(
    file: ReadableFile,
    entry: ArchiveEntry,
    path: bytes,
    existing: os.stat_result | None,
    options: SingleFileRestoreOptions,
    report: Report,
    new_id: NewId,
) -> None:
    if existing is not None and stat.S_ISBLK(existing.st_mode):
        _write_to_device(file, entry, path, existing, options, report)
    elif existing is not None and not stat.S_ISREG(existing.st_mode):
        _write_to_pipe(file, path, existing, report)
    elif existing is not None and isinstance(file, DiskImage):
        fd = _opened(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, existing)
        try:
            os.ftruncate(fd, file.size)
            _write_disk_image(file, entry.path, fd, report, compare=options.overwrite != "always", is_new=False)
            _finish_file(fd, entry, report)
        finally:
            os.close(fd)
    else:
        _write_new_file(file, entry, path, report, new_id)


def _opened(path: bytes, flags: int, existing: os.stat_result) -> int:
    """Open the entry that was found at a path. Raises OSError if another entry is there by now."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not os.path.samestat(found, existing):
        os.close(fd)
        raise OSError(errno.ESTALE, CHANGED)
    return fd


def _write_to_device(
    file: ReadableFile,
    entry: ArchiveEntry,
    path: bytes,
    existing: os.stat_result,
    options: SingleFileRestoreOptions,
    report: Report,
) -> None:
    fd = _opened(path, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK, existing)  # refused while the device is mounted
    try:
        room = os.lseek(fd, 0, os.SEEK_END)
        if file.size > room:
            raise ConfigurationError(
                f"{os.fsdecode(path)!a} has {room} bytes, but {file.size} are needed: nothing was written"
            )
        if isinstance(file, DiskImage):
            _write_disk_image(file, entry.path, fd, report, compare=options.overwrite != "always", is_new=False)
        else:
            _write_in_order(file, fd, report)
        os.fsync(fd)
        if file.size < room:
            report.skipped[f"{room - file.size} bytes at the end of the device were not changed"] += 1
    finally:
        os.close(fd)


def _write_to_pipe(file: ReadableFile, path: bytes, existing: os.stat_result, report: Report) -> None:
    with interruptible:  # until a reader opens the pipe
        fd = _opened(path, os.O_WRONLY | os.O_NOCTTY, existing)
    try:
        _write_in_order(file, fd, report)
    finally:
        os.close(fd)


def _write_in_order(file: ReadableFile, fd: int, report: Report) -> None:
    for part in file_parts(file):
        write_out(fd, part)
        report.file_bytes += len(part)
        report.new_bytes += len(part)


def write_out(fd: int, data: bytes) -> None:
    """Write all of the data to a descriptor that may block. An interrupt ends the wait at once. Raises OSError."""
    view = memoryview(data)
    while view:
        with interruptible:
            written = os.write(fd, view)
        view = view[written:]


def _write_new_file(file: ReadableFile, entry: ArchiveEntry, path: bytes, report: Report, new_id: NewId) -> None:
    above, name = os.path.split(path)
    temporary = f".cryo-restore-{new_id()[:8].lower()}".encode()
    folder = os.open(above or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = os.open(temporary, NEW_FLAGS, 0o600, dir_fd=folder)
        try:
            os.ftruncate(fd, file.size)
            if isinstance(file, DiskImage):
                _write_disk_image(file, entry.path, fd, report, compare=False, is_new=True)
            else:
                _write_segments(file, fd, report)
            _finish_file(fd, entry, report)
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
    """Make a new name in a folder durable, if this user may read the folder and its file system supports that."""
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


def _write_segments(file: ReadableFile, fd: int, report: Report) -> None:
    for start, length in file.segments():
        for offset in range(start, start + length, PART_BYTES):
            part = file.read(offset, min(PART_BYTES, start + length - offset))
            pwrite_all(fd, part, offset)
            report.new_bytes += len(part)
            report.file_bytes = offset + len(part)
    report.file_bytes = file.size


def _finish_file(fd: int, entry: ArchiveEntry, report: Report) -> None:
    try:
        os.utime(fd, ns=(entry.row.mtime_ns, entry.row.mtime_ns))
    except OSError as error:  # the content is restored: not an error of the file
        report.issue(entry.path, f"the modification time cannot be set: {error.strerror}")
    os.fsync(fd)


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


def _write_disk_image(image: DiskImage, path: bytes, fd: int, report: Report, *, compare: bool, is_new: bool) -> None:
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

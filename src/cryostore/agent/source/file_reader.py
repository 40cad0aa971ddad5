"""Reader of source entries: content of files, targets of links, extended attributes. Only this module opens files.

It opens a file only if it is a regular one, never through a symlink, and never in a way that can block. It compares the
status of a file before the read with the status after it: a difference means that the file changed meanwhile.

Of a sparse file, only the data segments between its holes are read (`SegmentReader`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.agent.block import ENTRY_BYTES_MAX, FAR_TIME, Extra, ExtraKind
from cryostore.agent.entry import NO_CONTENT, NO_DIGEST, Content, Row, is_held, row_of
from cryostore.agent.errors import SourceError
from cryostore.agent.report import Report
from cryostore.agent.source.walk import DIRECTORY_FLAGS, Directory, join, open_without_atime
from cryostore.agent.upload.content import SMALL_BYTES_MAX, ContentWriter, Read
from cryostore.core import interrupts

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
ATTEMPTS = 2
SECTOR_BYTES = 512
REPLACED = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The errnos of a SourceError which mean that the file was removed, or that another entry took its name."""
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS)
"""Errors of a file system that has no extended attributes."""
COMMON_NAMES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
"""The attributes that are read by name if the names cannot be listed."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
HOLES_MAX = ENTRY_BYTES_MAX // 16


class Attributes(NamedTuple):
    """The extras of an entry, and why some of its attributes could not be read.

    `gone` means that the entry is a directory that no longer exists: if it comes back, its attributes are missing.
    """

    extras: list[Extra]
    missing: list[str]
    gone: bool = False


class ReadFile(NamedTuple):
    """A file as it was read. `steady` means that it did not change meanwhile.

    `missing` says why some of its attributes could not be read.
    """

    row: Row
    content: Content
    extras: list[Extra]
    missing: list[str]
    steady: bool


class FileReader:
    """Reads the entries of one tree, and counts the bytes in `report` as it reads them.

    `before_read` is called with the path each time before a file is read: for tests.
    """

    def __init__(
        self, content: ContentWriter, report: Report, before_read: Callable[[bytes], None] | None = None
    ) -> None:
        self._content = content
        self._report = report
        self._before_read = before_read

    def read_small(self, directory: Directory, name: bytes, row: tuple[int, ...]) -> tuple[bytes, list[Extra]] | None:
        """The packed content and the extras of a small file, if after the read it is still as it was listed; else None.

        This is the short path for most files: it looks at the status only once, after the read. After None, `read_file`
        finds out what the entry is. The read takes nothing from an entry that is no longer a regular file, because a
        pipe or a terminal cannot be read at an offset.
        """
        _, _, _, _, _, size, mtime_ns, ctime_ns, inode = row
        if self._before_read is not None:
            self._before_read(join(directory.path, name))
        room = self._content.room(size)  # outside of the `try`: an error of the store is not an error of the source
        try:
            fd = open_without_atime(name, FILE_FLAGS, directory.fd)
            try:
                extras, missing, _ = read_attributes(fd)
                length = os.preadv(fd, [room], 0)
                status = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError:
            return None
        self._count(length)
        if (
            length != size
            or missing
            or status.st_ctime_ns != ctime_ns  # any change of a row also changes the change time
            or status.st_mtime_ns != mtime_ns
            or status.st_size != size
            or status.st_ino != inode
            or not stat.S_ISREG(status.st_mode)
        ):
            return None
        return self._content.small(length).pack(), extras

    def read_file(self, parent: int, path: bytes, name: bytes, row: Row, base_digest: bytes = NO_DIGEST) -> ReadFile:
        """Read a regular file. Raises SourceError for the file, and errors of the store unchanged."""
        fd = _open(parent, path, name)
        try:
            before = _status(fd, path)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(path, "is no longer a regular file")
            attempt = 1
            while True:
                stored = self._read(fd, path, before, row.device, base_digest)
                after = _status(fd, path)
                if _same(before, after) and stored.row.size == after.st_size:
                    return stored
                if attempt == ATTEMPTS:
                    break
                attempt += 1
                before = after
                _rewind(fd, path)
            changed = Extra(ExtraKind.CHANGED, b"")
            return stored._replace(extras=[*stored.extras, changed], steady=False)
        finally:
            os.close(fd)

    def read_unchanged(
        self, parent: int, path: bytes, name: bytes, row: Row, content: Content, holds: Callable[[Read], bool]
    ) -> ReadFile | None:
        """The file, if `holds` finds that its bytes are `content`, and it does not change meanwhile; else None.

        Raises the same errors as `read_file`.
        """
        fd = _open(parent, path, name)
        try:
            before = _status(fd, path)
            extras, missing, _ = read_attributes(fd)
            if not stat.S_ISREG(before.st_mode) or before.st_size != row.size:
                return None
            if self._before_read is not None:
                self._before_read(path)
            if not holds(lambda view: self._filled(fd, path, view)):
                return None
            after = _status(fd, path)
            stored = ReadFile(row_of(before, row.device), content, [*_far_time(before), *extras], missing, steady=True)
            return stored if _same(before, after) else None
        finally:
            os.close(fd)

    def _read(self, fd: int, path: bytes, before: os.stat_result, device: int, base_digest: bytes) -> ReadFile:
        if self._before_read is not None:
            self._before_read(path)
        row = row_of(before, device)
        attributes = read_attributes(fd)
        extras, missing = [*_far_time(before), *attributes.extras], attributes.missing
        size = row.size
        may_have_holes = size > SMALL_BYTES_MAX and before.st_blocks * SECTOR_BYTES < size
        if may_have_holes and (segments := data_segments(fd, size)) is not None:
            return self._read_sparse(fd, path, segments, ReadFile(row, NO_CONTENT, extras, missing, steady=True))
        if size <= SMALL_BYTES_MAX:
            length = self._filled(fd, path, self._content.room(size))
            if length <= size:
                content = self._content.small(length, base_digest=base_digest)
                return ReadFile(row._replace(size=length), content, extras, missing, steady=True)
            _rewind(fd, path)  # it has grown: read it as a large one
        content, length = self._content.large(lambda view: self._filled(fd, path, view), size)
        return ReadFile(row._replace(size=length), content, extras, missing, steady=True)

    def _read_sparse(self, fd: int, path: bytes, segments: list[tuple[int, int]], stored: ReadFile) -> ReadFile:
        """Read a file with holes. Its content is the data between them."""
        pieces = SegmentReader(fd, path, list(segments), self._count)
        content, _ = self._content.large(pieces.read, sum(size for _, size in segments))
        holes = holes_between(segments, stored.row.size)
        if holes:
            data = b"".join(offset.to_bytes(8, "little") + size.to_bytes(8, "little") for offset, size in holes)
            stored = stored._replace(extras=[*stored.extras, Extra(ExtraKind.HOLES, data)])
        return stored._replace(content=content, steady=pieces.is_whole)

    def _filled(self, fd: int, path: bytes, view: memoryview) -> int:
        got = _fill(fd, path, view)
        self._count(got)
        return got

    def _count(self, read_bytes: int) -> None:
        self._report.read_bytes += read_bytes
        self._report.done_bytes += read_bytes

    def read_other(self, parent: int, path: bytes, name: bytes, row: Row) -> Attributes:
        """The extras of an entry that is not a regular file. Opens the entry only if it is a directory.

        Raises SourceError for a symlink whose target, or a device whose number, cannot be read. Never raises for a
        directory: a directory always gets an entry.
        """
        extras: list[Extra] = []
        try:
            if stat.S_ISLNK(row.mode):
                extras.append(Extra(ExtraKind.LINK_TARGET, os.readlink(name, dir_fd=parent)))
            elif stat.S_ISCHR(row.mode) or stat.S_ISBLK(row.mode):
                number = os.stat(name, dir_fd=parent, follow_symlinks=False).st_rdev
                data = os.major(number).to_bytes(4, "little") + os.minor(number).to_bytes(4, "little")
                extras.append(Extra(ExtraKind.DEVICE_NUMBER, data))
        except OSError as error:
            raise SourceError.of(path, error) from error
        missing: list[str] = []
        if not is_held(row.mtime_ns):
            try:
                extras += _far_time(os.stat(name, dir_fd=parent, follow_symlinks=False))
            except OSError as error:
                missing.append(f"its modification time cannot be read: {error.strerror}")
        found = read_attributes(b"/proc/self/fd/%d/%s" % (parent, name))
        if found.missing and row.is_directory:  # there may be no /proc
            found = read_directory_attributes(parent, name)
        return Attributes(extras + found.extras, missing + found.missing, found.gone)


def _open(parent: int, path: bytes, name: bytes) -> int:
    try:
        return open_without_atime(name, FILE_FLAGS, parent)
    except OSError as error:
        raise SourceError.of(path, error) from error


def _status(fd: int, path: bytes) -> os.stat_result:
    try:
        return os.fstat(fd)
    except OSError as error:
        raise SourceError.of(path, error) from error


def _rewind(fd: int, path: bytes) -> None:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError as error:
        raise SourceError.of(path, error) from error


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def _fill(fd: int, path: bytes, view: memoryview) -> int:
    """Read until the view is full or the file ends. Returns the number of bytes."""
    try:
        filled = os.readv(fd, [view])
        while 0 < filled < len(view):
            got = os.readv(fd, [view[filled:]])
            if not got:
                break
            filled += got
    except OSError as error:
        raise SourceError.of(path, error) from error
    return filled


def _far_time(status: os.stat_result) -> list[Extra]:
    """The modification time as an extra, if a row cannot hold it."""
    if is_held(status.st_mtime_ns):
        return []
    return [Extra(ExtraKind.FAR_TIME, FAR_TIME.pack(*divmod(status.st_mtime_ns, 1_000_000_000)))]


def read_attributes(file: int | bytes) -> Attributes:
    """All extended attributes of an open descriptor, or of a path without following a symlink, sorted by name."""
    follow = isinstance(file, int)
    missing: list[str] = []
    listed = True
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return Attributes([], [])
        missing.append(f"its extended attributes cannot be listed: {error.strerror}")
        names = list(COMMON_NAMES)
        listed = False
    extras: list[Extra] = []
    length = 0
    for name in sorted(names) if names else ():
        try:
            value = os.getxattr(file, name, follow_symlinks=follow)
        except OSError as error:
            if listed and error.errno != errno.ENODATA:  # else it was removed meanwhile, or never existed
                missing.append(f"attribute {name!a} cannot be read: {error.strerror}")
            continue
        length += len(value) + len(name)
        if length > ENTRY_BYTES_MAX:
            missing.append(f"attribute {name!a} and those after it are left out: together they are too long")
            break
        extras.append(Extra(ExtraKind.XATTR, os.fsencode(name) + b"\0" + value))
    return Attributes(extras, missing)


def read_directory_attributes(parent: int, name: bytes) -> Attributes:
    """The extended attributes of a directory, which this opens to read them."""
    try:
        fd = open_without_atime(name, DIRECTORY_FLAGS, parent)
    except OSError as error:
        gone = error.errno in GONE
        return Attributes([], [] if gone else [f"its extended attributes cannot be listed: {error.strerror}"], gone)
    try:
        return read_attributes(fd)
    finally:
        os.close(fd)


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

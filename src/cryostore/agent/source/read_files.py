"""Reading entries of the source: files, links, attributes. The only place where files of the source are opened.

A file is opened only if it is a regular one, never through a symlink and never so that the open could wait. What it was
before the read is compared with what it is after: a difference means that it changed meanwhile.
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
NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS)
"""What a file system says that has no extended attributes."""
COMMON_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
"""Asked for by name where the names cannot be listed."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
REPLACED = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The errno of a SourceError which says that the file was removed, or that something else took its name."""
HOLES_MAX = ENTRY_BYTES_MAX // 16


class Attributes(NamedTuple):
    """Extended attributes of an entry, and what of them could not be read, in words.

    `gone` says of a directory that it is not there any more: if it comes back, its attributes are missing.
    """

    extras: list[Extra]
    missing: list[str]
    gone: bool = False


class Stored(NamedTuple):
    """A file as it was read: its row, its content, its extras, and whether it held still.

    `missing` says which of its attributes could not be read.
    """

    row: Row
    content: Content
    extras: list[Extra]
    missing: list[str]
    steady: bool


class Source:
    """Entries of one tree; counts in `report` what it reads, while it does.

    `before_read` is called with a path each time a file is about to be read: for tests.
    """

    def __init__(
        self, content: ContentWriter, report: Report, before_read: Callable[[bytes], None] | None = None
    ) -> None:
        self._content = content
        self._report = report
        self._before_read = before_read

    def small(self, directory: Directory, name: bytes, row: tuple[int, ...]) -> tuple[bytes, list[Extra]] | None:
        """The packed content of a small file and its extras, if after it was read it is what was listed; else None.

        Most are, so this is the short way: one look tells, afterwards. None says nothing more: `file` finds out what it
        is. What is no regular file any more loses nothing by it: a pipe or a terminal cannot be read from an offset.
        """
        _, _, _, _, _, size, mtime_ns, ctime_ns, inode = row
        if self._before_read is not None:
            self._before_read(join(directory.path, name))
        room = self._content.room(size)  # out here: an error of the store is none of the source
        try:
            fd = open_without_atime(name, FILE_FLAGS, directory.fd)
            try:
                extras, missing, _ = _attributes(fd)
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
            or status.st_ctime_ns != ctime_ns  # whatever changes in a row changes the change time
            or status.st_mtime_ns != mtime_ns
            or status.st_size != size
            or status.st_ino != inode
            or not stat.S_ISREG(status.st_mode)
        ):
            return None
        return self._content.small(length).pack(), extras

    def file(self, parent: int, path: bytes, name: bytes, row: Row, base_digest: bytes = NO_DIGEST) -> Stored:
        """Read a regular file. Raises SourceError; what the store raises is raised as it is."""
        fd = _open(parent, path, name)
        try:
            before = _status(fd, path)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(path, "is no regular file any more")
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

    def same(
        self, parent: int, path: bytes, name: bytes, row: Row, content: Content, holds: Callable[[Read], bool]
    ) -> Stored | None:
        """The file, if `holds` says of its bytes that they are `content`, and it holds still meanwhile; else None.

        Raises as `file`.
        """
        fd = _open(parent, path, name)
        try:
            before = _status(fd, path)
            extras, missing, _ = _attributes(fd)
            if not stat.S_ISREG(before.st_mode) or before.st_size != row.size:
                return None
            if self._before_read is not None:
                self._before_read(path)
            if not holds(lambda view: self._filled(fd, path, view)):
                return None
            after = _status(fd, path)
            stored = Stored(row_of(before, row.device), content, [*_far_time(before), *extras], missing, steady=True)
            return stored if _same(before, after) else None
        finally:
            os.close(fd)

    def _read(self, fd: int, path: bytes, before: os.stat_result, device: int, base_digest: bytes) -> Stored:
        if self._before_read is not None:
            self._before_read(path)
        row = row_of(before, device)
        attributes = _attributes(fd)
        extras, missing = [*_far_time(before), *attributes.extras], attributes.missing
        size = row.size
        may_have_holes = size > SMALL_BYTES_MAX and before.st_blocks * SECTOR_BYTES < size
        if may_have_holes and (segments := _segments(fd, size)) is not None:
            return self._read_sparse(fd, path, segments, Stored(row, NO_CONTENT, extras, missing, steady=True))
        if size <= SMALL_BYTES_MAX:
            length = self._filled(fd, path, self._content.room(size))
            if length <= size:
                content = self._content.small(length, base_digest=base_digest)
                return Stored(row._replace(size=length), content, extras, missing, steady=True)
            _rewind(fd, path)  # it has grown: as a large one
        content, length = self._content.large(lambda view: self._filled(fd, path, view), size)
        return Stored(row._replace(size=length), content, extras, missing, steady=True)

    def _read_sparse(self, fd: int, path: bytes, segments: list[tuple[int, int]], stored: Stored) -> Stored:
        """A file with holes: its content is what lies between them."""
        pieces = _Pieces(fd, path, list(segments), self._count)
        content, _ = self._content.large(pieces.read, sum(size for _, size in segments))
        holes = _holes(segments, stored.row.size)
        if holes:
            data = b"".join(offset.to_bytes(8, "little") + size.to_bytes(8, "little") for offset, size in holes)
            stored = stored._replace(extras=[*stored.extras, Extra(ExtraKind.HOLES, data)])
        return stored._replace(content=content, steady=pieces.whole)

    def _filled(self, fd: int, path: bytes, view: memoryview) -> int:
        got = _fill(fd, path, view)
        self._count(got)
        return got

    def _count(self, read_bytes: int) -> None:
        self._report.read_bytes += read_bytes
        self._report.done_bytes += read_bytes

    def other(self, parent: int, path: bytes, name: bytes, row: Row) -> Attributes:
        """The extras of what is not a regular file; nothing but a directory is opened.

        Raises SourceError for a symlink of which there is no target, and a device without a number. A directory always
        has an entry.
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
        found = _attributes(b"/proc/self/fd/%d/%s" % (parent, name))
        if found.missing and row.is_directory:  # there may be no /proc
            found = _directory_attributes(parent, name)
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
    """Read until the view is full or the file ends."""
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


def _attributes(place: int | bytes) -> Attributes:
    """All extended attributes, ACLs and capabilities among them, sorted."""
    follow = isinstance(place, int)
    missing: list[str] = []
    listed = True
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in NO_XATTRS:
            return Attributes([], [])
        missing.append(f"its extended attributes cannot be listed: {error.strerror}")
        names = list(COMMON_XATTRS)
        listed = False
    extras: list[Extra] = []
    length = 0
    for name in sorted(names) if names else ():
        try:
            value = os.getxattr(place, name, follow_symlinks=follow)
        except OSError as error:
            if listed and error.errno != errno.ENODATA:  # else it was removed meanwhile, or there never was one
                missing.append(f"attribute {name!a} cannot be read: {error.strerror}")
            continue
        length += len(value) + len(name)
        if length > ENTRY_BYTES_MAX:
            missing.append(f"attribute {name!a} and those after it are left out: together they are too long")
            break
        extras.append(Extra(ExtraKind.XATTR, os.fsencode(name) + b"\0" + value))
    return Attributes(extras, missing)


def _directory_attributes(parent: int, name: bytes) -> Attributes:
    """As `_attributes`, of a directory that is opened for that."""
    try:
        fd = open_without_atime(name, DIRECTORY_FLAGS, parent)
    except OSError as error:
        gone = error.errno in GONE
        return Attributes([], [] if gone else [f"its extended attributes cannot be listed: {error.strerror}"], gone)
    try:
        return _attributes(fd)
    finally:
        os.close(fd)


def _far_time(status: os.stat_result) -> list[Extra]:
    """The modification time, if a row cannot hold it."""
    if is_held(status.st_mtime_ns):
        return []
    return [Extra(ExtraKind.FAR_TIME, FAR_TIME.pack(*divmod(status.st_mtime_ns, 1_000_000_000)))]


def _segments(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Offset and length of what lies between the holes of a file; None if the file system does not tell.

    Where there are too many holes, the shorter ones are taken for data.
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
        return None  # its bytes can be read all the same
    return found


def _append(segments: list[tuple[int, int]], offset: int, length: int, hole_bytes_min: int) -> None:
    """Add a segment, to the last one if the hole between them is shorter than that."""
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


def _holes(segments: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    holes = []
    at = 0
    for offset, length in [*segments, (size, 0)]:
        if offset > at:
            holes.append((at, offset - at))
        at = offset + length
    return holes


class _Pieces:
    """What lies between the holes, read as if it lay in one piece. What the file lost meanwhile is zeros."""

    def __init__(self, fd: int, path: bytes, segments: list[tuple[int, int]], count: Callable[[int], None]) -> None:
        self._count = count
        self._fd = fd
        self._path = path
        self._segments = segments
        self.whole = True

    def read(self, view: memoryview) -> int:
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
                self.whole = False
                got = len(part)
                part[:] = bytes(got)
            filled += got
            if got == length:
                self._segments.pop(0)
            else:
                self._segments[0] = (offset + got, length - got)
        return filled

"""Reading entries of the source: files, links, attributes. The only place where files of the source are opened.

A file is opened only if it is a regular one, never through a symlink and never so that the open could wait. What it was
before the read is compared with what it is after: a difference means that it changed meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cryostore.agent.block import Extra, ExtraKind
from cryostore.agent.content import SMALL_BYTES_MAX, ContentWriter, Read
from cryostore.agent.entry import Content, Row, row_of
from cryostore.agent.errors import SourceError, VanishedError
from cryostore.agent.walk import open_without_atime

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
ATTEMPTS = 2
SECTOR_BYTES = 512
NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS)


class Stored(NamedTuple):
    """A file as it was read: its row, its content, its extras, whether it held still, and its bytes that are new."""

    row: Row
    content: Content
    extras: list[Extra]
    steady: bool
    new_bytes: int


class Source:
    """Entries of one tree. `before_read` is called with a path each time a file is about to be read: for tests."""

    def __init__(self, content: ContentWriter, before_read: Callable[[bytes], None] | None = None) -> None:
        self._content = content
        self._before_read = before_read

    def file(self, parent: int, path: bytes, name: bytes, row: Row) -> Stored:
        """Read a regular file. Raises SourceError; what the store raises is raised as it is."""
        fd = _open(parent, path, name)
        try:
            with translated(path):
                before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(path, "is no regular file any more")
            attempt = 1
            while True:
                stored = self._read(fd, path, before, row.device)
                with translated(path):
                    after = os.fstat(fd)
                if _same(before, after) and stored.row.size == after.st_size:
                    return stored
                if attempt == ATTEMPTS:
                    break
                attempt += 1
                before = after
                with translated(path):
                    os.lseek(fd, 0, os.SEEK_SET)
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
            with translated(path):
                before = os.fstat(fd)
                extras = _xattrs(fd)
            if not stat.S_ISREG(before.st_mode) or before.st_size != row.size:
                return None
            if self._before_read is not None:
                self._before_read(path)
            if not holds(lambda view: _fill_of(fd, path, view)):
                return None
            with translated(path):
                after = os.fstat(fd)
            stored = Stored(row_of(before, row.device), content, extras, steady=True, new_bytes=0)
            return stored if _same(before, after) else None
        finally:
            os.close(fd)

    def _read(self, fd: int, path: bytes, before: os.stat_result, device: int) -> Stored:
        if self._before_read is not None:
            self._before_read(path)
        row = row_of(before, device)
        with translated(path):
            extras = _xattrs(fd)
        if row.size > SMALL_BYTES_MAX and before.st_blocks * SECTOR_BYTES < row.size:
            return self._read_sparse(fd, path, row, extras)
        if row.size <= SMALL_BYTES_MAX:
            room = self._content.room(row.size)
            with translated(path):
                length = _fill(fd, room)
            if length <= row.size:
                content, new = self._content.small(length)
                return Stored(row._replace(size=length), content, extras, steady=True, new_bytes=length if new else 0)
            with translated(path):
                os.lseek(fd, 0, os.SEEK_SET)  # it has grown: as a large one
        content, length = self._content.large(lambda view: _fill_of(fd, path, view), row.size)
        return Stored(row._replace(size=length), content, extras, steady=True, new_bytes=length)

    def _read_sparse(self, fd: int, path: bytes, row: Row, extras: list[Extra]) -> Stored:
        """A file with holes: its content is what lies between them."""
        with translated(path):
            segments = list(_segments(fd, row.size))
        pieces = _Pieces(fd, path, list(segments))
        content, length = self._content.large(pieces.read, sum(size for _, size in segments))
        holes = _holes(segments, row.size)
        if holes:
            data = b"".join(offset.to_bytes(8, "little") + size.to_bytes(8, "little") for offset, size in holes)
            extras = [*extras, Extra(ExtraKind.HOLES, data)]
        return Stored(row, content, extras, pieces.whole, length)

    def other(self, parent: int, path: bytes, name: bytes, row: Row) -> list[Extra]:
        """The extras of what is not a regular file; it is not opened. Raises SourceError."""
        extras: list[Extra] = []
        with translated(path):
            if stat.S_ISLNK(row.mode):
                extras.append(Extra(ExtraKind.LINK_TARGET, os.readlink(name, dir_fd=parent)))
            elif stat.S_ISCHR(row.mode) or stat.S_ISBLK(row.mode):
                number = os.stat(name, dir_fd=parent, follow_symlinks=False).st_rdev
                data = os.major(number).to_bytes(4, "little") + os.minor(number).to_bytes(4, "little")
                extras.append(Extra(ExtraKind.DEVICE_NUMBER, data))
            extras += _xattrs(b"/proc/self/fd/%d/%s" % (parent, name))
        return extras


@contextmanager
def translated(path: bytes) -> Iterator[None]:
    """Turn the operating system's errors into SourceError. Only for calls on the source."""
    try:
        yield
    except FileNotFoundError as error:
        raise VanishedError.of(path, error) from error
    except OSError as error:
        raise SourceError.of(path, error) from error


def _open(parent: int, path: bytes, name: bytes) -> int:
    try:
        return open_without_atime(name, FILE_FLAGS, parent)
    except FileNotFoundError as error:
        raise VanishedError.of(path, error) from error
    except OSError as error:
        raise SourceError.of(path, error) from error


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def _fill(fd: int, view: memoryview) -> int:
    """Read until the view is full or the file ends."""
    filled = os.readv(fd, [view])
    while 0 < filled < len(view):
        got = os.readv(fd, [view[filled:]])
        if not got:
            break
        filled += got
    return filled


def _fill_of(fd: int, path: bytes, view: memoryview) -> int:
    with translated(path):
        return _fill(fd, view)


def _xattrs(place: int | bytes) -> list[Extra]:
    """All extended attributes, ACLs and capabilities among them, sorted."""
    follow = isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in NO_XATTRS:
            return []
        raise
    found = []
    for name in sorted(names):
        try:
            value = os.getxattr(place, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno in NO_XATTRS:
                continue  # removed meanwhile
            raise
        found.append(Extra(ExtraKind.XATTR, os.fsencode(name) + b"\0" + value))
    return found


def _segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of what lies between the holes of a file."""
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

    def __init__(self, fd: int, path: bytes, segments: list[tuple[int, int]]) -> None:
        self._fd = fd
        self._path = path
        self._segments = segments
        self.whole = True

    def read(self, view: memoryview) -> int:
        filled = 0
        while self._segments and filled < len(view):
            offset, length = self._segments[0]
            part = view[filled : filled + length]
            with translated(self._path):
                got = os.preadv(self._fd, [part], offset)
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

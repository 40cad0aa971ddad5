"""Packed form of one archive entry: a row with its stat data, and the location of its content.

Byte tables: docs/reference/archive.md. Rows are compared as bytes: an entry has not changed if its row equals that of
the base.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

ROW = struct.Struct("<5I3qQ")
"""mode, uid, gid, links, device, size, mtime_ns, ctime_ns, inode"""
CONTENT = struct.Struct("<III16s")
"""object, chunk, offset in the chunk, first half of the SHA-256 of a small file's bytes"""
NO_DIGEST = bytes(16)
UINT32_MAX = 0xFFFF_FFFF
UNTRUSTED_CTIME = 0
"""A change time in a row that makes the next run read the entry again, whatever its stat data is then."""
TIME_NS_MIN, TIME_NS_MAX = -(1 << 63), (1 << 63) - 1
"""The range of times that a row can hold: years 1677 to 2262."""


class Row(NamedTuple):
    """The stat data of an entry. `device` numbers the file systems of the tree. The size of a directory is 0."""

    mode: int
    uid: int
    gid: int
    links: int
    device: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def pack(self) -> bytes:
        """The bytes of the row in a block."""
        return ROW.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview, index: int = 0) -> Row:
        """The row at `index` in the rows of a block."""
        return cls._make(ROW.unpack_from(data, index * ROW.size))

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)


class Content(NamedTuple):
    """The location where the bytes of a regular file begin; they continue chunk after chunk. Object 0: no bytes."""

    object_number: int
    chunk: int
    offset: int
    digest: bytes = NO_DIGEST

    def pack(self) -> bytes:
        """The bytes of the content in a block."""
        return CONTENT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview, index: int = 0) -> Content:
        """The content at `index` in the contents of a block."""
        return cls._make(CONTENT.unpack_from(data, index * CONTENT.size))


NO_CONTENT = Content(0, 0, 0)
PACKED_NO_CONTENT = NO_CONTENT.pack()


def row_of(status: os.stat_result, device: int) -> Row:
    """The row of an entry with this stat data."""
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        links = size = 0
    else:
        links = min(status.st_nlink, UINT32_MAX)
        size = status.st_size if stat.S_ISREG(mode) else 0
    # No file system has a change time of 0; in a row, 0 means UNTRUSTED_CTIME.
    ctime_ns = held_time(status.st_ctime_ns) or 1
    mtime_ns = held_time(status.st_mtime_ns)
    return Row(mode, status.st_uid, status.st_gid, links, device, size, mtime_ns, ctime_ns, status.st_ino)


def held_time(time_ns: int) -> int:
    """The time, or the nearest time that a row can hold."""
    return min(max(time_ns, TIME_NS_MIN), TIME_NS_MAX)


def is_held(time_ns: int) -> bool:
    """Whether a time in a row is exact, and not just the nearest time that a row can hold."""
    return TIME_NS_MIN < time_ns < TIME_NS_MAX

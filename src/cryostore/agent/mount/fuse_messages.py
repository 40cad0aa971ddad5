"""Messages of the kernel's FUSE protocol, as far as a read-only file system needs them.

Layouts and numbers are those of Linux's include/uapi/linux/fuse.h, version 7.31, which later kernels speak as well.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

MAJOR = 7
MINOR = 31
MINOR_MIN = 23
IN = struct.Struct("<IIQQIIIHH")
"""length, opcode, unique, node, uid, gid, pid, two unused fields"""
OUT = struct.Struct("<IiQ")
"""length, negative errno, unique"""
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
"""major, minor, readahead, flags, background, congestion, write, time granularity, pages, alignment, more flags"""
ATTRIBUTES = struct.Struct("<QQQqqqIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
"""node, generation, seconds that the name is valid, seconds that the attributes are valid, and their nanoseconds"""
ATTRIBUTES_OUT = struct.Struct("<QII")
OPEN_OUT = struct.Struct("<QII")
READ_IN = struct.Struct("<QQI")
RELEASE_IN = struct.Struct("<Q")
DIRENT = struct.Struct("<QQII")
GETXATTR_IN = struct.Struct("<II")
FORGET_IN = struct.Struct("<Q")
BATCH_FORGET_IN = struct.Struct("<II")
FORGET_ONE = struct.Struct("<QQ")
LSEEK_IN = struct.Struct("<QQI")
LSEEK_OUT = struct.Struct("<Q")
STATFS_OUT = struct.Struct("<5Q4I24x")

ASYNC_READ = 1 << 0
READDIRPLUS = 1 << 13
READDIRPLUS_AUTO = 1 << 14
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
WANTED = ASYNC_READ | READDIRPLUS | READDIRPLUS_AUTO | PARALLEL_DIROPS | MAX_PAGES | CACHE_SYMLINKS
KEEP_CACHE = 1 << 1
CACHE_DIRECTORY = 1 << 3
READ_PAGES_MAX = 256
WRITE_BYTES_MAX = 128 * 1024
NAMES_BYTES_MAX = 255


class Opcode(IntEnum):
    """The kernel's requests."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


class NodeAttributes(NamedTuple):
    """The attributes of a node, as stat shows them."""

    inode: int
    mode: int
    size: int
    blocks: int
    mtime_ns: int
    ctime_ns: int
    links: int
    uid: int
    gid: int
    device: int = 0

    def pack(self) -> bytes:
        """Return the attributes as the kernel expects them. The access time is the modification time."""
        seconds, nanoseconds = divmod(self.mtime_ns, 1_000_000_000)
        changed, changed_nanoseconds = divmod(self.ctime_ns, 1_000_000_000)
        times = (seconds, seconds, changed, nanoseconds, nanoseconds, changed_nanoseconds)
        owner = (self.mode, self.links, self.uid, self.gid)
        return ATTRIBUTES.pack(self.inode, self.size, self.blocks, *times, *owner, self.device, 4096, 0)


def device_number(major: int, minor: int) -> int:
    """Return a device number in the kernel's 32-bit encoding."""
    return ((minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)) & 0xFFFF_FFFF


def init_out(readahead: int, offered: int) -> bytes:
    """Return the answer to INIT."""
    return INIT_OUT.pack(MAJOR, MINOR, readahead, offered & WANTED, 16, 12, WRITE_BYTES_MAX, 1, READ_PAGES_MAX, 0, 0)


def entry_out(node: int, attributes: NodeAttributes | None, valid_seconds: int) -> bytes:
    """Return the answer to LOOKUP. Node 0 means that the name does not exist, for `valid_seconds`."""
    packed = bytes(ATTRIBUTES.size) if attributes is None else attributes.pack()
    return ENTRY.pack(node, 0, valid_seconds, valid_seconds, 0, 0) + packed


def dirent(inode: int, next_position: int, mode: int, name: bytes) -> bytes:
    """Return an item of a directory listing."""
    packed = DIRENT.pack(inode, next_position, len(name), mode >> 12) + name
    return packed + bytes(-len(packed) % 8)

"""Blocks of an archive's listing: the packed entries of one directory, or of a part of it.

Byte table: docs/reference/archive.md. Names and rows of a block are compared as bytes, and a block that equals a block
of the base is taken over unchanged. A directory of many entries has several blocks. The names decide the cuts between
them, so that one new name changes only one block.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from cryostore.agent.entry import CONTENT, ROW, Row, is_held
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.limits import MIB

FAR_TIME = struct.Struct("<qI")
HEAD = struct.Struct("<IBBHIIII")
"""length of the block, kind, flags, 0, bytes of the path, entries, bytes of names, bytes of extras"""
EXTRA = struct.Struct("<IBxxxI")
"""entry, kind, bytes"""
BLOCK_BYTES_MAX = 8 * MIB
"""A block ends before the entry that would make it longer, unless that is its only entry."""
ENTRY_BYTES_MAX = 16 * MIB
"""The greatest length of the extended attributes of an entry, and of its list of holes."""
WHOLE_ENTRIES_MAX = 2048
PART_ENTRIES_MAX = 8192
CUT_MASK = 1023


class Kind(IntEnum):
    """The kind of a block. The values are part of the format."""

    ROOT = 1
    """The root of the tree itself, as one entry with an empty name."""
    DIRECTORY = 2
    """The entries of the directory at the path, or some of them."""


class ExtraKind(IntEnum):
    """The kind of an extra. The values are part of the format."""

    LINK_TARGET = 1
    XATTR = 2
    """The bytes of the name, a zero byte, the value."""
    HOLES = 3
    """Pairs of offset and length, 8 bytes each: parts of the file without bytes in the content."""
    DEVICE_NUMBER = 4
    """Major and minor number, 4 bytes each."""
    CHANGED = 5
    """No bytes: the file changed while it was read."""
    FAR_TIME = 6
    """The modification time, if a row cannot hold it: seconds since 1970, 8 bytes signed, and nanoseconds, 4 bytes."""


class Extra(NamedTuple):
    """An optional fact about an entry, which most entries lack."""

    kind: int
    data: bytes


class Block(NamedTuple):
    """A decoded block. `raw` is the whole block as stored in the listing; the other bytes are parts of it."""

    kind: int
    path: bytes
    entries: int
    names: bytes
    rows: bytes
    contents: bytes
    extras: bytes
    raw: bytes

    def name_list(self) -> list[bytes]:
        """The names, in ascending order."""
        return self.names.split(b"\0")[:-1]

    def check_names(self) -> None:
        """Raise ArchiveDamagedError for names that no block may have."""
        _check_names(self.kind, self.path, self.names, self.entries)

    def extras_of(self) -> dict[int, list[Extra]]:
        """The extras by the index of their entry. Raises ArchiveDamagedError."""
        found: dict[int, list[Extra]] = {}
        at = 0
        while at < len(self.extras):
            if at + EXTRA.size > len(self.extras):
                raise _damaged(self.path)
            entry, kind, length = EXTRA.unpack_from(self.extras, at)
            at += EXTRA.size
            if entry >= self.entries or at + length > len(self.extras):
                raise _damaged(self.path)
            found.setdefault(entry, []).append(Extra(kind, self.extras[at : at + length]))
            at += length
        return found


def encode(
    kind: Kind,
    path: bytes,
    names: bytes,
    rows: Sequence[bytes],
    contents: Sequence[bytes],
    extras: dict[int, list[Extra]],
) -> bytes:
    """The bytes of a block. The names are in ascending order, each followed by a zero byte."""
    packed = b"".join(
        EXTRA.pack(entry, extra.kind, len(extra.data)) + extra.data
        for entry in sorted(extras)
        for extra in extras[entry]
    )
    parts = (path, names, *rows, *contents, packed)
    length = HEAD.size + sum(map(len, parts))
    return b"".join((HEAD.pack(length, kind, 0, 0, len(path), len(rows), len(names), len(packed)), *parts))


def decode(data: bytes, *, check_names: bool = True) -> Iterator[Block]:
    """The blocks in a chunk of a listing. Raises ArchiveDamagedError unless all are well formed.

    The caller may leave names unchecked only if it compares them with others and uses them for nothing else.
    """
    at = 0
    while at < len(data):
        block = _decode(data, at)
        if check_names:
            block.check_names()
        yield block
        at += len(block.raw)


def decode_readable(data: bytes) -> Iterator[Block | ArchiveDamagedError]:
    """As `decode`, but with an error in the place of each malformed block.

    Ends after bytes that are no block at all.
    """
    blocks = decode(data, check_names=False)
    while True:
        try:
            block = next(blocks, None)
            if block is None:
                return
            block.check_names()
            block.extras_of()
        except ArchiveDamagedError as error:
            yield error
        else:
            yield block


def _decode(data: bytes, at: int) -> Block:
    if at + HEAD.size > len(data):
        raise _damaged(b"")
    length, kind, flags, zero, path_bytes, count, names_bytes, extras_bytes = HEAD.unpack_from(data, at)
    sizes = (path_bytes, names_bytes, count * ROW.size, count * CONTENT.size, extras_bytes)
    if length != HEAD.size + sum(sizes) or at + length > len(data) or flags or zero:
        raise _damaged(b"")
    raw = data[at : at + length]
    parts = []
    place = HEAD.size
    for size in sizes:
        parts.append(raw[place : place + size])
        place += size
    path, names, rows, contents, extras = parts
    return Block(kind, path, count, names, rows, contents, extras, raw)


def _check_names(kind: int, path: bytes, names: bytes, count: int) -> None:
    """Refuse names that an attacker could have chosen: with separators, leading upwards, or doubled."""
    if kind == Kind.ROOT:
        if path or names not in (b"", b"\0") or count != len(names):  # some versions dropped the entry of the root
            raise _damaged(path)
        return
    if kind != Kind.DIRECTORY:
        raise ArchiveDamagedError(f"the archive has a block of kind {kind}, unknown to this version")
    if path and not all(map(is_name, path.split(b"/"))):
        raise _damaged(path)
    listed = names.split(b"\0")
    if listed.pop() or len(listed) != count or b"/" in names:
        raise _damaged(path)
    if b"." in listed or b".." in listed or b"" in listed:
        raise _damaged(path)
    if any(left >= right for left, right in pairwise(listed)):
        raise _damaged(path)


def is_name(name: bytes) -> bool:
    """Whether this can be the name of an entry directly in a directory."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


class BlockBuilder:
    """Builds a block from entries of one directory, added in the order of their names."""

    def __init__(self, kind: Kind, path: bytes) -> None:
        self._kind = kind
        self._path = path
        self._names: list[bytes] = []
        self._rows: list[bytes] = []
        self._contents: list[bytes] = []
        self._extras: dict[int, list[Extra]] = {}
        self._extras_bytes = 0

    def __len__(self) -> int:
        return len(self._names)

    def has_room(self, extras: Sequence[Extra]) -> bool:
        """Whether the block stays short enough with one more entry. An empty block has room for any entry."""
        length = sum(EXTRA.size + len(extra.data) for extra in extras)
        return not self._names or self._extras_bytes + length <= BLOCK_BYTES_MAX

    def add(self, name: bytes, row: bytes, content: bytes, extras: list[Extra]) -> None:
        """Add an entry, with its packed row and content."""
        if extras:
            self._extras[len(self._names)] = extras
            self._extras_bytes += sum(EXTRA.size + len(extra.data) for extra in extras)
        self._names.append(name + b"\0")
        self._rows.append(row)
        self._contents.append(content)

    def block(self) -> Block:
        """The block of the added entries."""
        names = b"".join(self._names)
        return next(decode(encode(self._kind, self._path, names, self._rows, self._contents, self._extras)))


def mtime_of(row: Row, extras: Sequence[Extra]) -> int:
    """The modification time of an entry, in nanoseconds since 1970, even if its row cannot hold it."""
    if is_held(row.mtime_ns):
        return row.mtime_ns
    for extra in extras:
        if extra.kind == ExtraKind.FAR_TIME and len(extra.data) == FAR_TIME.size:
            seconds, nanoseconds = FAR_TIME.unpack(extra.data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return row.mtime_ns


def parts_of(names: Sequence[bytes]) -> Iterator[range]:
    """The ranges of a directory's sorted names that each make a block. An empty directory has one block too."""
    if len(names) <= WHOLE_ENTRIES_MAX:
        yield range(len(names))
        return
    first = 0
    for index, name in enumerate(names, start=1):
        if not zlib.crc32(name) & CUT_MASK or index - first == PART_ENTRIES_MAX or index == len(names):
            yield range(first, index)
            first = index


def order_key(path: bytes) -> bytes:
    """The sort key of directories in a listing: parents first, then by name."""
    return path.replace(b"/", b"\0")


def _damaged(path: bytes) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"the archive's listing is damaged at {path!a}")


def holes_of(extras: Sequence[Extra], size: int) -> list[tuple[int, int]]:
    """The holes of a file of `size` bytes. Raises ArchiveDamagedError unless they ascend and lie within the file."""
    found: list[tuple[int, int]] = []
    for extra in extras:
        if extra.kind == ExtraKind.HOLES:
            words = memoryview(extra.data)
            if len(words) % 16:
                raise ArchiveDamagedError("a file's holes are damaged")
            numbers = [int.from_bytes(words[at : at + 8], "little") for at in range(0, len(words), 8)]
            found = list(zip(numbers[::2], numbers[1::2], strict=True))
    at = 0
    for offset, length in found:
        if offset < at or offset + length > size:
            raise ArchiveDamagedError("a file's holes are damaged")
        at = offset + length
    return found

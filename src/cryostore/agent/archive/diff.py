"""Differences between two archives, found from their listings alone: two sorted lists are read side by side.

No content is read. Large files of the same size are compared by the digests of their chunks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.archive.listing import ArchiveEntry, archive_entries
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.archive.sparse_layout import listed_data_bytes
from cryostore.agent.block import ExtraKind, order_key
from cryostore.agent.entry import NO_DIGEST, Content
from cryostore.agent.header import CATALOG, DISK, content_name

CONTENT_EXTRAS = (ExtraKind.LINK_TARGET, ExtraKind.DEVICE_NUMBER)
ATTRIBUTES = (ExtraKind.XATTR,)


class Change(Enum):
    """How an entry changed."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    """The kind of the entry, its content, its link target or its device number differs."""
    METADATA = "metadata"
    """Only mode, owner, time or extended attributes differ. The time of a directory is ignored: it changes with each
    entry.
    """


class Difference(NamedTuple):
    """An entry that differs between the archives; `old` or `new` is None if that archive does not have it."""

    change: Change
    path: bytes
    old: ArchiveEntry | None
    new: ArchiveEntry | None


def compare_archives(old: Archive, new: Archive) -> Iterator[Difference]:
    """Return all differences in archive order: a directory before its subdirectories, each sorted by name."""
    compared = _Comparison(old, new)
    left, right = archive_entries(old), archive_entries(new)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and _sort_key(a) < _sort_key(b)):
            assert a is not None
            yield Difference(Change.REMOVED, a.path, a, None)
            a = next(left, None)
        elif a is None or _sort_key(b) < _sort_key(a):
            yield Difference(Change.ADDED, b.path, None, b)
            b = next(right, None)
        else:
            if (change := compared.change(a, b)) is not None:
                yield Difference(change, b.path, a, b)
            a, b = next(left, None), next(right, None)


def _sort_key(entry: ArchiveEntry) -> tuple[bytes, bytes]:
    parent, _, name = entry.path.rpartition(b"/")
    return order_key(parent), name


class _Comparison:
    """Compares entries of the same path in two archives."""

    def __init__(self, old: Archive, new: Archive) -> None:
        self._archives = (old, new)
        self._pages = (ChunkPages(old), ChunkPages(new))
        self._objects = (old.object_checksums(), new.object_checksums())

    def change(self, old: ArchiveEntry, new: ArchiveEntry) -> Change | None:
        if stat.S_IFMT(old.row.mode) != stat.S_IFMT(new.row.mode) or old.row.size != new.row.size:
            return Change.CHANGED
        if _extras(old, CONTENT_EXTRAS) != _extras(new, CONTENT_EXTRAS):
            return Change.CHANGED
        if old.row.is_file and old.row.size and not self._same_content(old, new):
            return Change.CHANGED
        same_time = old.row.mtime_ns == new.row.mtime_ns or new.row.is_directory
        if (old.row.mode, old.row.uid, old.row.gid) != (new.row.mode, new.row.uid, new.row.gid) or not same_time:
            return Change.METADATA
        return None if _extras(old, ATTRIBUTES) == _extras(new, ATTRIBUTES) else Change.METADATA

    def _same_content(self, old: ArchiveEntry, new: ArchiveEntry) -> bool:
        if DISK in {archive.header.kind for archive in self._archives}:
            segments = [{name: found[name] for name in found if name != CATALOG} for found in self._objects]
            return segments[0] == segments[1]
        if old.content.digest != NO_DIGEST or new.content.digest != NO_DIGEST:
            return old.content.digest == new.content.digest
        if _extras(old, (ExtraKind.HOLES,)) != _extras(new, (ExtraKind.HOLES,)):
            return False
        name = content_name(new.content.object_number)
        same_object = self._objects[0].get(name) == self._objects[1].get(name)
        if old.content == new.content and same_object:
            return True
        return self._same_chunks(old.content, new.content, listed_data_bytes(new))

    def _same_chunks(self, old: Content, new: Content, length: int) -> bool:
        if not old.object_number or not new.object_number:
            return old.object_number == new.object_number
        left, right = (
            pages.from_chunk(content.object_number, content.chunk)
            for pages, content in zip(self._pages, (old, new), strict=True)
        )
        for a, b in zip(left, right, strict=False):
            if digest_of(a) != digest_of(b):
                return False
            length -= a.length
            if length <= 0:
                return True
        return False


def _extras(entry: ArchiveEntry, kinds: tuple[ExtraKind, ...]) -> list[tuple[int, bytes]]:
    return sorted((extra.kind, extra.data) for extra in entry.extras if extra.kind in kinds)

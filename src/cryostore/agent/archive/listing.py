"""Entries of an archive, one by one, as its listing has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import Block, Extra, Kind
from cryostore.agent.entry import Content, Row
from cryostore.agent.source.walk import join


class ArchiveEntry(NamedTuple):
    """An entry of an archive: its path, its row, where its content lies, and its extra fields."""

    path: bytes
    row: Row
    content: Content
    extras: list[Extra]


def archive_entries(archive: Archive) -> Iterator[ArchiveEntry]:
    """Return all entries of an archive in archive order, without the root."""
    for block in archive.blocks():
        if block.kind != Kind.ROOT:
            yield from block_entries(block)


def block_entries(block: Block) -> Iterator[ArchiveEntry]:
    """Return the entries of a block."""
    extras = block.extras_of()
    for index, name in enumerate(block.name_list()):
        row, content = Row.unpack(block.rows, index), Content.unpack(block.contents, index)
        yield ArchiveEntry(join(block.path, name), row, content, extras.get(index, []))


def block_entry(block: Block, index: int) -> ArchiveEntry:
    """Return entry number `index` of a block."""
    path = join(block.path, block.name_list()[index])
    extras = block.extras_of().get(index, []) if block.extras else []
    return ArchiveEntry(path, Row.unpack(block.rows, index), Content.unpack(block.contents, index), extras)


def archive_path(archive: Archive, text: str) -> bytes:
    """Turn a path as the user writes it into one below the archive's root.

    An absolute path is taken below the root's own path, or else from the top of the archive.
    """
    path = os.path.normpath(os.fsencode(text)) if text else b"."
    root = archive.header.root
    if path.startswith(b"/"):
        if path != root and not path.startswith(root.rstrip(b"/") + b"/"):
            path = path.lstrip(b"/")
        else:
            path = path[len(root.rstrip(b"/")) :].lstrip(b"/")
    return b"" if path in (b".", b"") else path

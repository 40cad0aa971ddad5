"""The entries of an archive, one by one: for who lists, compares or searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.archive import Archive
from cryostore.agent.block import Extra, Kind
from cryostore.agent.entry import Content, Row
from cryostore.agent.walk import join
from cryostore.core.errors import ConfigurationError


class Entry(NamedTuple):
    """An entry of an archive with all that is known of it."""

    path: bytes
    row: Row
    content: Content
    extras: list[Extra]


def entries(archive: Archive, path: bytes = b"", *, recursive: bool = True) -> Iterator[Entry]:
    """What is at a path and, of a directory, in it, in the order of the archive; the root itself is left out.

    Raises ConfigurationError if there is nothing at the path.
    """
    parent = path.rpartition(b"/")[0]
    found = not path
    for block in archive.blocks():
        if block.kind == Kind.ROOT:
            continue
        inside = not path or block.path == path or block.path.startswith(path + b"/")
        if inside and (recursive or block.path == path):
            found = True
            extras = block.extras_of()
            for index, name in enumerate(block.name_list()):
                yield _entry(join(block.path, name), block.rows, block.contents, index, extras)
        elif path and block.path == parent and (name := path.rpartition(b"/")[2]) in block.name_list():
            found = True
            index = block.name_list().index(name)
            if not Row.unpack(block.rows, index).is_directory:
                yield _entry(path, block.rows, block.contents, index, block.extras_of())
    if not found:
        raise ConfigurationError(
            f"the recovery point has no {os.fsdecode(path)!a}", hint="`cryo ls POINT` shows what it has"
        )


def _entry(path: bytes, rows: bytes, contents: bytes, index: int, extras: dict[int, list[Extra]]) -> Entry:
    return Entry(path, Row.unpack(rows, index), Content.unpack(contents, index), extras.get(index, []))


def path_in(archive: Archive, text: str) -> bytes:
    """A path as people write it, below the root of the archive: from there, or from the top of the file system."""
    path = os.path.normpath(os.fsencode(text)) if text else b"."
    root = archive.header.root
    if path.startswith(b"/"):
        if path != root and not path.startswith(root.rstrip(b"/") + b"/"):
            path = path.lstrip(b"/")
        else:
            path = path[len(root.rstrip(b"/")) :].lstrip(b"/")
    return b"" if path in (b".", b"") else path

"""The blocks of a catalog as a whole tree: what an archive lacks is told, and made up for.

Some versions of the agent lost the entry of a folder whose attributes they could not read, and stored all below it.
Such a folder is given an entry here, so that what is below it can be restored.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator

from cryostore.agent.archive.block_order import BlockOrder
from cryostore.agent.block import Block, BlockBuilder, Kind
from cryostore.agent.entry import PACKED_NO_CONTENT, UNTRUSTED_CTIME, Row
from cryostore.agent.errors import ArchiveDamagedError

UNKNOWN_FOLDER = Row(stat.S_IFDIR | 0o700, 0, 0, 0, 0, 0, 0, UNTRUSTED_CTIME, 0)
"""What is said of a folder of which nothing is known but its name."""
MISSING_ROOT = "the folder that was backed up has no entry: its mode, owner and times are lost"
MISSING_FOLDER = "has no entry in the folder above it: its mode, owner and times are lost"

ReportProblem = Callable[[bytes, str], None]
"""Told the path of something that is wrong with an archive, and what it is."""


def ignore_problem(path: bytes, reason: str) -> None:
    """Tell nobody."""


def with_missing_folders(blocks: Iterable[Block], tell: ReportProblem, top: bytes | None = None) -> Iterator[Block]:
    """The blocks, and before each those of the entries that lead to it and are missing. Tells what is wrong.

    `top` is the directory that the blocks begin with, if they are not those of a whole catalog. Raises
    ArchiveDamagedError if a catalog has none.
    """
    block_order = BlockOrder(top)
    has_root = top is not None
    for block in blocks:
        if not has_root or block.kind == Kind.ROOT:
            if has_root:
                tell(b"", "there is more than one entry of the folder that was backed up")
                continue
            has_root = True
            if block.kind == Kind.ROOT and block.entries and Row.unpack(block.rows).is_directory:
                block_order.add(block)
                yield block
                continue
            tell(b"", MISSING_ROOT)
            yield (root := _lost(Kind.ROOT, b"", b""))
            block_order.add(root)
            if block.kind == Kind.ROOT:
                continue
        for above, name in block_order.lacks(block.path):
            lost = _lost(Kind.DIRECTORY, above, name)
            block_order.enter(lost)
            tell(above + b"/" + name if above else name, MISSING_FOLDER)
            yield lost
        if (fault := block_order.add(block)) is not None:
            tell(block.path, fault)
        yield block
    if not has_root:
        raise ArchiveDamagedError("the catalog of the archive is empty")


def _lost(kind: Kind, path: bytes, name: bytes) -> Block:
    builder = BlockBuilder(kind, path)
    builder.add(name, UNKNOWN_FOLDER.pack(), PACKED_NO_CONTENT, [])
    return builder.block()

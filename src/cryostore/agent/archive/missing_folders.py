"""Missing folder entries of a listing: found, reported, and replaced.

Some versions of the agent lost the entry of a folder whose attributes they could not read, but stored all entries below
it. Here such a folder gets an entry, so that everything below it can be restored.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator

from cryostore.agent.archive.block_order import BlockOrder
from cryostore.agent.block import Block, BlockBuilder, Kind
from cryostore.agent.entry import PACKED_NO_CONTENT, UNTRUSTED_CTIME, Row
from cryostore.agent.errors import ArchiveDamagedError

UNKNOWN_FOLDER = Row(stat.S_IFDIR | 0o700, 0, 0, 0, 0, 0, 0, UNTRUSTED_CTIME, 0)
"""The row of a folder of which only the name is known."""
MISSING_ROOT = "the backed-up folder itself has no entry: its mode, owner and times are lost"
MISSING_FOLDER = "has no entry in its parent folder: its mode, owner and times are lost"

ReportProblem = Callable[[bytes, str], None]
"""Takes the path of a problem in an archive, and its description."""


def ignore_problem(path: bytes, reason: str) -> None:
    """Report nothing."""


def with_missing_folders(
    blocks: Iterable[Block], report_problem: ReportProblem, top: bytes | None = None
) -> Iterator[Block]:
    """Return the blocks, and before each the blocks of missing entries that lead to it. Report each problem.

    `top` is the directory that the blocks begin with, if they are not those of a whole listing. Raises
    ArchiveDamagedError if a whole listing is empty.
    """
    block_order = BlockOrder(top)
    has_root = top is not None
    for block in blocks:
        if not has_root or block.kind == Kind.ROOT:
            if has_root:
                report_problem(b"", "the listing has more than one entry of the folder that was backed up")
                continue
            has_root = True
            if block.kind == Kind.ROOT and block.entries and Row.unpack(block.rows).is_directory:
                block_order.add(block)
                yield block
                continue
            report_problem(b"", MISSING_ROOT)
            yield (root := _folder_block(Kind.ROOT, b"", b""))
            block_order.add(root)
            if block.kind == Kind.ROOT:
                continue
        for above, name in block_order.lacks(block.path):
            folder = _folder_block(Kind.DIRECTORY, above, name)
            block_order.enter(folder)
            report_problem(above + b"/" + name if above else name, MISSING_FOLDER)
            yield folder
        if (fault := block_order.add(block)) is not None:
            report_problem(block.path, fault)
        yield block
    if not has_root:
        raise ArchiveDamagedError("the listing of the archive is empty")


def _folder_block(kind: Kind, path: bytes, name: bytes) -> Block:
    builder = BlockBuilder(kind, path)
    builder.add(name, UNKNOWN_FOLDER.pack(), PACKED_NO_CONTENT, [])
    return builder.block()

"""Order of the blocks of a listing: each directory comes after its own entry in its parent directory.

`BlockOrder` checks that order. Some versions of the agent lost the entry of a folder whose attributes they could not
read, but stored all entries below it. `with_missing_folders` gives such a folder an entry, so that everything below it
can be restored.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator

from cryostore.agent.block import Block, BlockBuilder, Kind, order_key
from cryostore.agent.entry import PACKED_NO_CONTENT, ROW, UNTRUSTED_CTIME, Row
from cryostore.agent.errors import ArchiveDamagedError

FORMAT_BYTE = 0o170000 >> 8
FOLDER_BYTE = 0o040000 >> 8
_IS_FOLDER = bytes(byte & FORMAT_BYTE == FOLDER_BYTE for byte in range(256))

ROOT_MISSING = "has no entry of its own"
ORPHANED = "has no entry in its parent folder"
DISORDERED = "is out of order in the listing"
UNKNOWN_FOLDER = Row(stat.S_IFDIR | 0o700, 0, 0, 0, 0, 0, 0, UNTRUSTED_CTIME, 0)
"""The row of a folder whose entry is missing: only its name is known."""
MISSING_ROOT = "the backed-up folder itself has no entry: its mode, owner and times are lost"
MISSING_FOLDER = "has no entry in its parent folder: its mode, owner and times are lost"

ReportProblem = Callable[[bytes, str], None]
"""Takes the path of a problem in an archive, and its description."""


class BlockOrder:
    """Checks block after block whether it may follow the blocks before it.

    Only the folder names of the directories that lead to the current block are held.
    """

    def __init__(self, top: bytes | None = None) -> None:
        """`top` is the directory whose block comes first; without it, the root's block comes first."""
        self._above: list[tuple[bytes, set[bytes]]] = [] if top is None else [(top, set())]
        self._last: tuple[int, bytes] | None = None if top is None else (Kind.ROOT, b"")
        self._last_name = b""

    def add(self, block: Block) -> str | None:
        """Return the fault of the position of a block; None if there is none."""
        fault = self._misplaced(block)
        if block.kind == Kind.ROOT:
            return fault if block.entries else ROOT_MISSING
        missing = self.lacks(block.path)
        self.enter(block)
        return fault or (ORPHANED if missing else None)

    def _misplaced(self, block: Block) -> str | None:
        key = (block.kind, order_key(block.path))
        last, self._last = self._last, key
        first, _, _ = block.names.partition(b"\0")
        last_name = self._last_name
        self._last_name = block.names[block.names.rfind(b"\0", 0, -1) + 1 : -1]
        if last is None:
            return None if block.kind == Kind.ROOT else DISORDERED
        if key == last and block.kind != Kind.ROOT:
            return DISORDERED if block.entries and last_name and first <= last_name else None
        return None if key > last else DISORDERED

    def lacks(self, path: bytes) -> list[tuple[bytes, bytes]]:
        """Return the entries, each as directory and name, that must precede the block of a directory and did not."""
        while self._above and not _leads_to(self._above[-1][0], path):
            self._above.pop()
        if not path:
            return []
        above, names = self._above[-1] if self._above else (b"", set())
        missing = []
        for name in path[len(above) :].lstrip(b"/").split(b"/") if path != above else []:
            if name not in names:
                missing.append((above, name))
            above, names = (above + b"/" + name if above else name), set()
        return missing

    def enter(self, block: Block) -> None:
        """Note the folders that a block lists."""
        if not self._above or self._above[-1][0] != block.path:
            self._above.append((block.path, set()))
        folders = block.rows[1 :: ROW.size].translate(_IS_FOLDER)
        if any(folders):
            self._above[-1][1].update(
                name for name, is_folder in zip(block.name_list(), folders, strict=False) if is_folder
            )


def _leads_to(above: bytes, path: bytes) -> bool:
    return not above or path == above or path.startswith(above + b"/")


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

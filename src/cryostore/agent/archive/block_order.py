"""Order and block_order of the blocks of a catalog: each directory comes after its own entry in the directory above."""

from __future__ import annotations

from cryostore.agent.block import Block, Kind, order_key
from cryostore.agent.entry import ROW

FORMAT_BYTE = 0o170000 >> 8
FOLDER_BYTE = 0o040000 >> 8
_IS_FOLDER = bytes(byte & FORMAT_BYTE == FOLDER_BYTE for byte in range(256))

ROOT_MISSING = "has no entry of its own"
ORPHANED = "has no entry in the folder above it"
DISORDERED = "stands in the wrong place of the catalog"


class BlockOrder:
    """Says of each block, one after the other, whether it may stand where it does.

    Holds the names of the folders in those directories alone that lead to the last one.
    """

    def __init__(self, top: bytes | None = None) -> None:
        """`top` is the directory whose block is the first one; without, that is the root's."""
        self._above: list[tuple[bytes, set[bytes]]] = [] if top is None else [(top, set())]
        self._last: tuple[int, bytes] | None = None if top is None else (Kind.ROOT, b"")
        self._last_name = b""

    def add(self, block: Block) -> str | None:
        """What is wrong with the place of a block, None if nothing is."""
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
        """What entries, each as its directory and its name, must come before the block of a directory and did not."""
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
        """Take the folders of a block as known."""
        if not self._above or self._above[-1][0] != block.path:
            self._above.append((block.path, set()))
        folders = block.rows[1 :: ROW.size].translate(_IS_FOLDER)
        if any(folders):
            self._above[-1][1].update(
                name for name, is_folder in zip(block.name_list(), folders, strict=False) if is_folder
            )


def _leads_to(above: bytes, path: bytes) -> bool:
    return not above or path == above or path.startswith(above + b"/")

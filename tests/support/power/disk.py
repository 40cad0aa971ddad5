"""Possible content of a disk after a power loss: every combination of unflushed operations that file systems allow.

The rules of this disk, which are harsher than those of any file system we know:

- A flush of a file keeps its bytes and its size, but not its name. A flush of a directory
  keeps the names in it, but neither the content of its files nor the names further down.
- Every other operation on a file may be there or not, each by itself and in any order. A write may be torn at
  any sector, or be there as zeros (the size has changed, but not the bytes).
- Each created or removed name may be there or not, by itself. A rename is atomic.

The rules are here. `states` selects the states that are tried.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from support.power.trace import Operation, Sync, Trace

SECTOR_BYTES = 512


@dataclass
class Disk:
    """Files by number, and the names in directories. Changes of a copy do not affect the original."""

    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, trace: Trace) -> Disk:
        """Return the disk at the start of the trace, where everything is flushed."""
        disk = cls({}, {number: {} for number in trace.directories})
        for path, number in trace.numbers.items():
            if path:
                folder, _, name = path.rpartition("/")
                disk.names[trace.numbers[folder]][name] = number
                if number not in trace.directories:
                    disk.contents[number] = trace.files[path]
        return disk

    def copy(self) -> Disk:
        """Return a copy."""
        return Disk(dict(self.contents), {number: dict(names) for number, names in self.names.items()})

    def apply(self, operation: Operation, sectors: frozenset[int] | None = None) -> None:
        """Apply an operation. A write with `sectors` changes only these, and leaves zeros elsewhere."""
        getattr(self, f"_{operation.kind}")(
            operation.target, *operation.arguments, *([] if sectors is None else [sectors])
        )

    def files(self) -> dict[str, bytes | None]:
        """Return everything that can be reached from the root: files by path, directories as None."""
        found = {}
        waiting = [("", 0)]
        while waiting:
            prefix, folder = waiting.pop()
            for name, number in self.names[folder].items():
                if number in self.names:
                    found[prefix + name] = None
                    waiting.append((f"{prefix}{name}/", number))
                else:
                    found[prefix + name] = self.contents.get(number, b"")
        return found

    def _write(self, target, offset, data, sectors=None):
        content = bytearray(self.contents.get(target, b""))
        if len(content) < offset + len(data):
            content.extend(bytes(offset + len(data) - len(content)))
        if sectors is None:
            content[offset : offset + len(data)] = data
        for sector in sectors or ():
            begin, end = max(sector * SECTOR_BYTES, offset), min((sector + 1) * SECTOR_BYTES, offset + len(data))
            content[begin:end] = data[begin - offset : end - offset]
        self.contents[target] = bytes(content)

    def _size(self, target, size):
        content = self.contents.get(target, b"")
        self.contents[target] = content[:size] + bytes(max(0, size - len(content)))

    def _grow(self, target, size):
        self._size(target, max(size, len(self.contents.get(target, b""))))

    def _link(self, target, name, number):
        self.names[target][name] = number

    def _unlink(self, target, name):
        self.names[target].pop(name, None)

    def _rename(self, target, old, new):
        names = self.names[target]
        if old in names:
            names[new] = names.pop(old)


def sectors_of(operation: Operation) -> range:
    """Return the sectors of a write."""
    offset, data = operation.arguments
    return range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES))


def flushed(pending: list[Operation], sync: Sync) -> list[Operation]:
    """Return the operations that a flush covers."""
    return [one for one in pending if one.target == sync.target and one.ended < sync.begun]


def digest(files: dict[str, bytes | None]) -> bytes:
    """Return a key that is equal for equal trees."""
    whole = hashlib.sha256()
    for path, content in sorted(files.items()):
        whole.update(f"{path}\0{'directory' if content is None else len(content)}\0".encode())
        whole.update(content or b"")
    return whole.digest()


def write(files: dict[str, bytes | None], folder: Path) -> Path:
    """Write the files below `folder`, which must not exist, with the modes of a store's files."""
    folder.mkdir(mode=0o700)
    for path, content in sorted(files.items()):
        place = folder / path
        if content is None:
            place.mkdir(mode=0o700)
        else:
            place.write_bytes(content)
            place.chmod(0o600)
    return folder

"""What may be on a disk after the power went: every mixture that file systems allow of what was done and not flushed.

The rules of this disk, which are harsher than those of any file system we know:

- What a flush of a file covers is there: its bytes and its size, but not its name. What a flush of a directory covers
  is there: the names in it, not what is in the files, nor the names further down.
- Anything else done to a file may be there or not, each operation by itself and in any order; a write may be torn at
  any sector, or be there as zeros (the size has changed, the bytes have not come).
- Each name that was made or taken away may be there or not, by itself, but a rename is whole or did not happen.

Lives here: the rules. Which of the states are tried: `power_states`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from support.power.trace import Operation, Sync, Trace

SECTOR_BYTES = 512


@dataclass
class Disk:
    """Files by number, and the names in directories. A copy may be changed without changing the other."""

    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, trace: Trace) -> Disk:
        """The disk when the trace began: all that was there is flushed."""
        disk = cls({}, {number: {} for number in trace.directories})
        for path, number in trace.numbers.items():
            if path:
                folder, _, name = path.rpartition("/")
                disk.names[trace.numbers[folder]][name] = number
                if number not in trace.directories:
                    disk.contents[number] = trace.files[path]
        return disk

    def copy(self) -> Disk:
        """Another one."""
        return Disk(dict(self.contents), {number: dict(names) for number, names in self.names.items()})

    def apply(self, operation: Operation, sectors: frozenset[int] | None = None) -> None:
        """Let an operation have happened; a write with `sectors` came there only in these, and is zeros elsewhere."""
        getattr(self, f"_{operation.kind}")(
            operation.target, *operation.arguments, *([] if sectors is None else [sectors])
        )

    def files(self) -> dict[str, bytes | None]:
        """What can be reached from the root: files by path, directories as None."""
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
    """The sectors that a write touches."""
    offset, data = operation.arguments
    return range(offset // SECTOR_BYTES, -(-(offset + len(data)) // SECTOR_BYTES))


def flushed(pending: list[Operation], sync: Sync) -> list[Operation]:
    """Those of the operations that a flush covers."""
    return [one for one in pending if one.target == sync.target and one.ended < sync.begun]


def digest(files: dict[str, bytes | None]) -> bytes:
    """One for each tree of files."""
    whole = hashlib.sha256()
    for path, content in sorted(files.items()):
        whole.update(f"{path}\0{'directory' if content is None else len(content)}\0".encode())
        whole.update(content or b"")
    return whole.digest()


def write(files: dict[str, bytes | None], folder: Path) -> Path:
    """Make the files below `folder`, which must not exist, with the modes that our own files have."""
    folder.mkdir(mode=0o700)
    for path, content in sorted(files.items()):
        place = folder / path
        if content is None:
            place.mkdir(mode=0o700)
        else:
            place.write_bytes(content)
            place.chmod(0o600)
    return folder

"""File operations of a real process below a directory, system call by system call, from `strace`.

Runs a program under strace, and reads its lines as operations on files and names. The state of a disk
after a power loss is in `disk`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

CALLS = (
    "openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,"
    "ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "sync_file_range,copy_file_range,sendfile,symlink,symlinkat,clone,clone3,fork,vfork"
)
STRING_BYTES_MAX = 64 << 20
LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))")
ENDED = re.compile(r"(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?: .*)?\n?", re.DOTALL)
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
BEGINNING = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "close"}
"""Calls that are ordered by their start: the system may carry them out at any time from then on."""
UNTRACED = {"sync_file_range", "copy_file_range", "sendfile", "symlink", "symlinkat"}


@dataclass(frozen=True)
class Operation:
    """A change of one file, or of the names in one directory; `target` is the number of either.

    `kind` is write (offset, data), size (bytes), grow (bytes), link (name, number), unlink (name) or rename (old name,
    new name). `at` is its place in the order of all that happened, `ended` when it had returned.
    """

    kind: str
    target: int
    arguments: tuple
    at: int
    ended: int


@dataclass(frozen=True)
class Sync:
    """A flush of a file or directory. Covers operations that ended before its start; from `at` on they are on disk."""

    target: int
    begun: int
    at: int
    path: str


@dataclass(frozen=True)
class Mark:
    """A line in which the program marks its progress."""

    line: str
    at: int


@dataclass
class Trace:
    """The events in order, since the start with `files`: bytes by path, None for a directory."""

    files: dict[str, bytes | None]
    numbers: dict[str, int]
    """The numbers of the files and directories at the start, by path. The directory itself is "" and 0."""
    directories: set[int]
    """The numbers of all directories, new ones included."""
    events: list[Operation | Sync | Mark]


@dataclass
class Open:
    """The file or directory of a descriptor."""

    number: int
    path: str
    offset: int = 0


class Call(NamedTuple):
    """A system call that succeeded."""

    at: int
    begun: int
    ended: int
    name: str
    text: str
    result: int

    @property
    def strings(self):
        """Return its string arguments."""
        return [bytes.fromhex(found.replace("\\x", "")) for found in TEXT.findall(self.text)]

    @property
    def paths(self):
        """Return its string arguments as names of files."""
        return [os.fsdecode(one) for one in self.strings]

    @property
    def numbers(self):
        """Return its numeric arguments."""
        return [int(found) for found in re.findall(r"(?<![\w\\])-?\d+(?![\w])", TEXT.sub("", self.text))]


def require_strace() -> None:
    """Skip the test where strace is not installed or may not trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace processes here")


def traced(command: list[str], root: Path, marks: Path, log: Path, **environment: str) -> Trace:
    """Run a program to its end; return its operations below `root`, and the lines that it wrote to `marks`."""
    files = tree(root)
    full = ["strace", "-f", "-qq", "-xx", "-s", str(STRING_BYTES_MAX), "-e", f"trace={CALLS}", "-e", "signal=none"]
    done = subprocess.run(
        [*full, "-o", str(log), *command], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with log.open(encoding="ascii") as lines:
        return Reader(root, marks, files).read(lines)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a directory with its bytes, and every directory with None."""
    if not folder.is_dir():
        return {}
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def folder_of(path):
    """Return the directory of a path; "" for the root."""
    return path.rpartition("/")[0]


def name_of(path):
    """Return the last part of a path."""
    return path.rpartition("/")[2]


class Reader:
    """Reads lines as operations. `there` are the current names, as the program sees them."""

    def __init__(self, root: Path, marks: Path, files: dict[str, bytes | None]) -> None:
        self.root, self.marks = str(root), str(marks)
        self.there = {"": 0}
        self.directories = {0}
        self.sizes = {}
        self.open = {}
        self.events = []
        self.count = 0
        for path, content in files.items():
            self._number(path, directory=content is None)
            self.sizes[self.there[path]] = len(content or b"")
        self.trace = Trace(files, dict(self.there), self.directories, self.events)

    def read(self, lines) -> Trace:
        """Read a complete trace."""
        for call in sorted(self._calls(lines)):
            assert call.name not in UNTRACED or self.root not in str(call.paths), f"{call.name} is not looked at yet"
            handler = getattr(self, f"_{NAMES.get(call.name, call.name)}", None)
            if handler is not None:
                handler(call)
        return self.trace

    @staticmethod
    def _calls(lines):
        waiting = {}
        for number, line in enumerate(lines, start=1):
            found = LINE.match(line)
            if not found:
                continue
            pid, name, text, resumed, rest = found.groups()
            begun = number
            if resumed:
                name, text, begun = waiting.pop(pid)
                text += rest
            elif text.endswith("<unfinished ...>"):
                waiting[pid] = name, text.removesuffix("<unfinished ...>").rstrip(), number
                continue
            ended = ENDED.fullmatch(text)
            assert ended, f"a line that cannot be read: {line[:200]}"
            if ended[2] != "?" and int(ended[2], 0) >= 0:
                yield Call(begun if name in BEGINNING else number, begun, number, name, ended[1], int(ended[2], 0))

    # --- descriptors ------------------------------------------------------------------------------------------------

    def _openat(self, call):
        path = self._inside(call.paths[0])
        if call.paths[0] == self.marks:
            self.open[call.result] = Open(-1, self.marks)
            return
        self.open.pop(call.result, None)
        if path is None:
            return
        if path not in self.there:
            assert "O_CREAT" in call.text, call
            self._name(call, path)
            self.sizes[self.there[path]] = 0
        elif "O_TRUNC" in call.text and self.sizes[self.there[path]]:
            self._do(call, "size", self.there[path], 0)
        number = self.there[path]
        assert "O_APPEND" not in call.text, "appending is not looked at yet"
        self.open[call.result] = Open(number, path)

    def _close(self, call):
        self.open.pop(call.numbers[0], None)

    def _dup(self, call):
        if call.name == "fcntl" and "F_DUPFD" not in call.text:
            return
        self.open.pop(call.result, None)
        if (found := self.open.get(call.numbers[0])) is not None:
            self.open[call.result] = found

    def _lseek(self, call):
        if (found := self.open.get(call.numbers[0])) is not None:
            found.offset = call.result

    # --- files ------------------------------------------------------------------------------------------------------

    def _write(self, call):
        found = self.open.get(int(call.text.partition(",")[0]))
        if found is None:
            return
        data = b"".join(call.strings)[: call.result]
        assert len(data) == call.result, "strace cut a string short"
        if found.number < 0:
            self.events.extend(Mark(line, call.at) for line in data.decode().splitlines())
            return
        if call.name.startswith("p"):
            *_, offset, flags = call.numbers if call.name == "pwritev2" else (*call.numbers, 0)
            assert not flags, "flags of a write are not looked at yet"
        else:
            offset = found.offset
            found.offset += len(data)
        self.sizes[found.number] = max(self.sizes[found.number], offset + len(data))
        self._do(call, "write", found.number, offset, data)

    def _ftruncate(self, call):
        if (found := self.open.get(call.numbers[0])) is not None:
            self.sizes[found.number] = call.numbers[1]
            self._do(call, "size", found.number, call.numbers[1])

    def _fallocate(self, call):
        if (found := self.open.get(call.numbers[0])) is not None:
            end = call.numbers[-2] + call.numbers[-1]
            self.sizes[found.number] = max(self.sizes[found.number], end)
            self._do(call, "grow", found.number, end)

    def _fsync(self, call):
        if (found := self.open.get(call.numbers[0])) is not None:
            self.events.append(Sync(found.number, call.begun, call.at, found.path))

    # --- names ------------------------------------------------------------------------------------------------------

    def _mkdir(self, call):
        if (path := self._inside(call.paths[0])) is not None:
            self._name(call, path, directory=True)

    def _link(self, call):
        old, new = map(self._inside, call.paths)
        if new is not None:
            self._name(call, new, number=self.there[old])

    def _rename(self, call):
        old, new = map(self._inside, call.paths)
        if old is None and new is None:
            return
        assert folder_of(old) == folder_of(new), "renaming between directories is not looked at yet"
        self.there[new] = self.there.pop(old)
        self._do(call, "rename", self.there[folder_of(old)], name_of(old), name_of(new))

    def _unlink(self, call):
        if (path := self._inside(call.paths[0])) is not None:
            del self.there[path]
            self._do(call, "unlink", self.there[folder_of(path)], name_of(path))

    def _inside(self, path):
        """Return the path below the root; None for others, and for the index of SQLite's log, which may be lost."""
        if path == self.root:
            return ""
        return path.removeprefix(f"{self.root}/") if path.startswith(f"{self.root}/") and path[-4:] != "-shm" else None

    def _name(self, call, path, *, number=None, directory=False):
        if path:
            number = self._number(path, number=number, directory=directory)
            self._do(call, "link", self.there[folder_of(path)], name_of(path), number)

    def _number(self, path, *, number=None, directory=False):
        if number is None:
            self.count += 1
            number = self.count
            if directory:
                self.directories.add(number)
        self.there[path] = number
        return number

    def _do(self, call, kind, target, *arguments):
        self.events.append(Operation(kind, target, arguments, call.at, call.ended))


NAMES = {
    "open": "openat", "creat": "openat", "dup2": "dup", "dup3": "dup", "fcntl": "dup", "writev": "write",
    "pwrite64": "write", "pwritev": "write", "pwritev2": "write", "fdatasync": "fsync", "renameat": "rename",
    "renameat2": "rename", "linkat": "link", "unlinkat": "unlink", "rmdir": "unlink", "mkdirat": "mkdir",
}  # fmt: skip
"""Calls that are another form of the given one."""

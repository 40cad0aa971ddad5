"""The source tree as it is found: directories in the order of the archive, each with its sorted entries.

Directories are opened relative to their parents and never through a symlink. Nothing but directories, and tags
of caches if those are to be left out, is opened here.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.agent.entry import ROW, UINT32_MAX
from cryostore.agent.errors import SourceError
from cryostore.core import interrupts

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
NAME_ENCODING = sys.getfilesystemencoding()
NAME_ERRORS = sys.getfilesystemencodeerrors()
"""As `os.fsencode` does it, which asks for both each time."""
NO_ATIME: int = getattr(os, "O_NOATIME", 0)

CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
CACHE_TAG_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
FORMAT_BYTE = 0o170000 >> 8
FOLDER_BYTE = 0o040000 >> 8

Select = Callable[[bytes, int, int], bool]
"""Whether an entry is wanted, by its path, its mode and its size."""


class Directory(NamedTuple):
    """A directory of the source while it is open. `rows` belong to `names`, which are sorted."""

    path: bytes
    fd: int
    names: list[bytes]
    rows: list[bytes]


class Skipped(NamedTuple):
    """What was left out on purpose, and why."""

    path: bytes
    reason: str


class Walk:
    """One walk over a tree. Problems and what is left out are told to `on_problem` and `on_skip`."""

    def __init__(
        self,
        root: bytes,
        *,
        select: Select | None = None,
        only: frozenset[bytes] | None = None,
        markers: frozenset[bytes] = frozenset(),
        without_caches: bool = False,
        one_file_system: bool = False,
        stores: frozenset[bytes] = frozenset(),
        on_problem: Callable[[SourceError], None],
        on_skip: Callable[[Skipped], None],
    ) -> None:
        """`only` and `stores` are paths below the root.

        Of the first nothing else is wanted; the second, and directories that hold a marker, are taken as empty, and
        `without_caches` those whose owners declare that all in them can be made again.
        """
        self._root = root
        self._select = select
        self._only = only
        self._leading = frozenset(above for path in only or () for above in _above(path))
        self._markers = markers
        self._without_caches = without_caches
        self._one_file_system = one_file_system
        self._stores = stores
        self._on_problem = on_problem
        self._on_skip = on_skip
        self._devices: dict[int, int] = {}
        self.root_status = self._stat_root()

    def device(self, number: int) -> int:
        """The small number of a file system: they are counted as they are met."""
        return self._devices.setdefault(number, len(self._devices))

    def _stat_root(self) -> os.stat_result:
        try:
            return os.stat(self._root)
        except OSError as error:
            raise SourceError.of(self._root, error) from error

    def __iter__(self) -> Iterator[Directory]:
        """Each directory, open while it is looked at: parents first, then their directories by name."""
        self.device(self.root_status.st_dev)
        stack: list[tuple[int, bytes, Iterator[bytes]]] = []
        try:
            # The root may be named through a symlink, because its owner says so; nothing below it may.
            opened = self._open(self._root, b"", None)
            while opened is not None:
                interrupts.check()
                fd, path = opened
                directory = self._list(fd, path)
                yield directory
                stack.append((fd, path, iter(_folders(directory))))
                opened = self._next(stack)
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _next(self, stack: list[tuple[int, bytes, Iterator[bytes]]]) -> tuple[int, bytes] | None:
        while stack:
            fd, path, below = stack[-1]
            for name in below:
                child = path + b"/" + name if path else name
                if (opened := self._open(name, child, fd)) is not None:
                    return opened
            os.close(fd)
            stack.pop()
        return None

    def _open(self, name: bytes, path: bytes, parent: int | None) -> tuple[int, bytes] | None:
        if path in self._stores:
            self._on_skip(Skipped(path, "the store itself"))
            return None
        flags = DIRECTORY_FLAGS if parent is not None else DIRECTORY_FLAGS & ~os.O_NOFOLLOW
        try:
            fd = open_without_atime(name, flags, parent)
        except OSError as error:
            if parent is None:
                raise SourceError.of(path, error) from error
            self._on_problem(SourceError.of(path, error))
            return None
        if self._one_file_system and parent is not None and not self._is_named(path) and _device(fd) != _device(parent):
            os.close(fd)
            self._on_skip(Skipped(path, "another file system"))
            return None
        return fd, path

    def _is_named(self, path: bytes) -> bool:
        """Whether the user named the directory, or one below it: then it may lie on any file system."""
        return path in self._leading or (self._only is not None and path in self._only)

    def _list(self, fd: int, path: bytes) -> Directory:
        found: list[tuple[bytes, bytes]] = []
        pack = ROW.pack
        devices = self._devices
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # gone before it was seen
                    except OSError as error:
                        self._on_problem(SourceError.of(join(path, os.fsencode(entry.name)), error))
                        continue
                    mode = status.st_mode
                    form = mode & 0o170000
                    if form == 0o140000:  # a socket means nothing without its process
                        self._on_skip(Skipped(join(path, os.fsencode(entry.name)), "socket"))
                        continue
                    device = devices.get(status.st_dev)
                    if device is None:
                        device = self.device(status.st_dev)
                    if form == 0o040000:
                        links = size = 0
                    else:
                        links = min(status.st_nlink, UINT32_MAX)
                        size = status.st_size if form == 0o100000 else 0
                    row = pack(
                        mode,
                        status.st_uid,
                        status.st_gid,
                        links,
                        device,
                        size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                        status.st_ino,
                    )
                    found.append((entry.name.encode(NAME_ENCODING, NAME_ERRORS), row))
        except OSError as error:
            self._on_problem(SourceError.of(path, error))
        found = self._selected(path, fd, found)
        found.sort()
        return Directory(path, fd, [name for name, _ in found], [row for _, row in found])

    def _selected(self, path: bytes, fd: int, found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """What is wanted of the entries of a directory."""
        if self._only is not None and path in self._leading:
            wanted = self._only | self._leading
            found = [entry for entry in found if join(path, entry[0]) in wanted]
        if self._markers and any(name in self._markers for name, _ in found):
            self._on_skip(Skipped(path, "marked as excluded"))
            return []
        if self._without_caches and any(name == CACHE_TAG for name, _ in found) and _is_cache(fd):
            self._on_skip(Skipped(path, "a cache"))
            return []
        select = self._select
        if select is None:
            return found
        rows = [(name, row, ROW.unpack(row)) for name, row in found]
        return [(name, row) for name, row, facts in rows if select(join(path, name), facts[0], facts[5])]


def _is_cache(fd: int) -> bool:
    """Whether the tag in a directory is one: a regular file that begins with the signature."""
    try:
        tag = os.open(CACHE_TAG, CACHE_TAG_FLAGS, dir_fd=fd)
        try:
            return stat.S_ISREG(os.fstat(tag).st_mode) and os.pread(tag, len(CACHE_SIGNATURE), 0) == CACHE_SIGNATURE
        finally:
            os.close(tag)
    except OSError:
        return False  # what is in it is backed up


def _device(fd: int) -> int:
    return os.fstat(fd).st_dev


def _folders(directory: Directory) -> list[bytes]:
    # The second byte of a row has the bits of its mode that tell what it is.
    return [
        name for name, row in zip(directory.names, directory.rows, strict=True) if row[1] & FORMAT_BYTE == FOLDER_BYTE
    ]


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def join(path: bytes, name: bytes) -> bytes:
    """The path of an entry in the directory at `path`, which is empty for the root."""
    return path + b"/" + name if path else name


def open_without_atime(name: bytes, flags: int, parent: int | None) -> int:
    """Open, and leave the access time as it is where that is allowed."""
    try:
        return os.open(name, flags | NO_ATIME, dir_fd=parent)
    except PermissionError:
        return os.open(name, flags, dir_fd=parent)

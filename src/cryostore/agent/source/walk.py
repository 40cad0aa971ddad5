"""Walk over the source tree: directories in the order of the archive, each with its sorted entries.

The walk opens directories relative to their parents and never through a symlink. It opens nothing else, except the tags
of cache directories if those are left out.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.agent.entry import ROW, UINT32_MAX, row_of
from cryostore.agent.errors import SourceError
from cryostore.core import interrupts

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
NAME_ENCODING = sys.getfilesystemencoding()
NAME_ERRORS = sys.getfilesystemencodeerrors()
"""The values that `os.fsencode` uses; it looks them up at each call."""
NO_ATIME: int = getattr(os, "O_NOATIME", 0)

CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
CACHE_TAG_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
FORMAT_BYTE = 0o170000 >> 8
FOLDER_BYTE = 0o040000 >> 8
FORMAT, FOLDER, FILE, SOCKET = 0o170000, 0o040000, 0o100000, 0o140000
OTHERS = frozenset({0o120000, 0o010000, 0o020000, 0o060000})
"""Symlinks, FIFOs and devices."""
OPEN_LEVELS_MAX = 16
"""The most nested directories that are open at a time, not counting the root."""

Select = Callable[[bytes, int, int], bool]
"""Returns whether an entry is backed up, from its path, mode and size."""


class Directory(NamedTuple):
    """An open directory of the source: its sorted names, and the packed row of each."""

    path: bytes
    fd: int
    names: list[bytes]
    rows: list[bytes]


class Skipped(NamedTuple):
    """An entry that was left out on purpose, and why."""

    path: bytes
    reason: str


@dataclass(slots=True)
class _Level:
    """A directory on the path from the root to the current one. `fd` is -1 while it is closed."""

    path: bytes
    fd: int
    below: Iterator[bytes]
    device_and_inode: tuple[int, int] = (0, 0)
    """Set while it is closed."""


class Walk:
    """One walk over a tree. It reports problems to `on_problem` and entries left out to `on_skip`."""

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
        """`only` and `stores` are paths relative to the root.

        With `only`, nothing but these paths is backed up. The walk takes some directories as empty: those of `stores`,
        those that hold a marker and, with `without_caches`, those with a cache tag. A path of `only` below such a
        directory, or below one that `select` leaves out, is backed up nevertheless. If the walk does not meet a path of
        `only`, it reports a problem.
        """
        self._root = root
        self._select = select
        self._only = only
        self._leading = frozenset(above for path in only or () for above in _above(path))
        self._unmet = set(only or ()) - {b""}
        self._left_out: set[bytes] = set()
        """Directories above a path of `only` of which nothing else is backed up."""
        self._named: dict[bytes, set[bytes]] = {}
        """By directory, the names in it that are in `only` or lead to a path of `only`."""
        for path in (self._leading | (only or frozenset())) - {b""}:
            parent, _, name = path.rpartition(b"/")
            self._named.setdefault(parent, set()).add(name)
        self._markers = markers
        self._without_caches = without_caches
        self._one_file_system = one_file_system
        self._stores = stores
        self._on_problem = on_problem
        self._told: set[bytes] = set()
        """Paths with a reported problem, if `only` is given."""
        self._on_skip = on_skip
        self._devices: dict[int, int] = {}
        self.root_status = self._stat_root()

    def device(self, number: int) -> int:
        """The number of a file system in this archive, counted in the order of the walk."""
        return self._devices.setdefault(number, len(self._devices))

    def _report(self, problem: SourceError) -> None:
        if self._named:
            self._told.add(problem.path)
        self._on_problem(problem)

    def _stat_root(self) -> os.stat_result:
        try:
            return os.stat(self._root)
        except OSError as error:
            raise SourceError.of(self._root, error) from error

    def __iter__(self) -> Iterator[Directory]:
        """Yield each directory, which stays open until the next one: parents first, then their directories by name."""
        self.device(self.root_status.st_dev)
        stack: list[_Level] = []
        try:
            # The user may name the root through a symlink. Below it the walk follows none.
            opened = self._open(self._root, b"", None)
            while opened is not None:
                interrupts.check()
                fd, path = opened
                level = _Level(path, fd, iter(()))
                stack.append(level)
                if len(stack) > OPEN_LEVELS_MAX + 1:
                    _close(stack[-1 - OPEN_LEVELS_MAX])
                directory = self._list(fd, path)
                yield directory
                level.below = iter(_folders(directory))
                opened = self._next(stack)
            self._report_unmet()
        finally:
            for level in stack:
                if level.fd >= 0:
                    os.close(level.fd)

    def _report_unmet(self) -> None:
        for path in sorted(self._unmet):
            if self._told.isdisjoint((path, *_above(path))):
                self._report(SourceError(path, "cannot be reached: a folder above it was removed or replaced"))

    def _next(self, stack: list[_Level]) -> tuple[int, bytes] | None:
        while stack:
            level = stack[-1]
            for name in level.below:
                child = level.path + b"/" + name if level.path else name
                if (opened := self._open(name, child, level.fd)) is not None:
                    return opened
            stack.pop()
            try:
                if stack and stack[-1].fd < 0:
                    self._open_again(stack, level.fd)
            finally:
                if level.fd >= 0:
                    os.close(level.fd)
        return None

    def _open_again(self, stack: list[_Level], below: int) -> None:
        """Open the last directory of the stack again: from its child `below`, or by its path from the root.

        It must be the same directory. If it no longer exists, the rest of it is left out.
        """
        level = stack[-1]
        reason = "was moved while it was read; the rest of it is left out"
        for start, way in ((below, [b".."]), (stack[0].fd, level.path.split(b"/"))):
            if start < 0:
                continue
            try:
                fd = _opened_along(start, way)
                if _device_and_inode(fd) == level.device_and_inode:
                    level.fd = fd
                    return
                os.close(fd)
            except OSError as error:
                reason = f"cannot be opened again; the rest of it is left out: {error.strerror}"
        level.below = iter(())
        self._report(SourceError(level.path, reason))

    def _open(self, name: bytes, path: bytes, parent: int | None) -> tuple[int, bytes] | None:
        if path in self._stores:
            if self._is_named(path):
                self._report(SourceError(path, "is the store itself, which is not backed up into itself"))
            else:
                self._on_skip(Skipped(path, "the store itself"))
            return None
        flags = DIRECTORY_FLAGS if parent is not None else DIRECTORY_FLAGS & ~os.O_NOFOLLOW
        try:
            fd = open_without_atime(name, flags, parent)
        except OSError as error:
            if parent is None:
                raise SourceError.of(path, error) from error
            self._report(SourceError.of(path, error))
            return None
        if parent is None or not self._one_file_system or self._is_named(path):
            return fd, path
        try:
            if _device_and_inode(fd)[0] == _device_and_inode(parent)[0]:
                return fd, path
            self._on_skip(Skipped(path, "another file system"))
        except OSError as error:
            self._report(SourceError.of(path, error))
        os.close(fd)
        return None

    def _is_named(self, path: bytes) -> bool:
        """Whether the user named the directory, or a path below it. Then it may be on another file system."""
        return path in self._leading or (self._only is not None and path in self._only)

    def _list(self, fd: int, path: bytes) -> Directory:
        found: dict[bytes, bytes] = {}  # a dict, because some file systems list a name twice
        missed: list[bytes] = []
        pack = ROW.pack
        devices = self._devices
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        missed.append(os.fsencode(entry.name))
                        continue
                    mode = status.st_mode
                    form = mode & FORMAT
                    device = devices.get(status.st_dev)
                    if device is None:
                        device = self.device(status.st_dev)
                    if form == FOLDER:
                        links = size = 0
                    elif form in OTHERS or (form == FILE and status.st_size >= 0):
                        links = min(status.st_nlink, UINT32_MAX)
                        size = status.st_size if form == FILE else 0
                    else:
                        self._leave_out(join(path, os.fsencode(entry.name)), status)
                        continue
                    try:
                        row = pack(
                            mode,
                            status.st_uid,
                            status.st_gid,
                            links,
                            device,
                            size,
                            status.st_mtime_ns,
                            status.st_ctime_ns or 1,  # as `row_of` does it
                            status.st_ino,
                        )
                    except struct.error:  # a time that a row cannot hold
                        row = row_of(status, device).pack()
                    found[entry.name.encode(NAME_ENCODING, NAME_ERRORS)] = row
        except OSError as error:
            self._report(SourceError.of(path, error))
        if missed:
            self._look_again(path, fd, missed, found)
        selected = self._selected(path, fd, found)
        return Directory(path, fd, [name for name, _ in selected], [row for _, row in selected])

    def _leave_out(self, path: bytes, status: os.stat_result) -> None:
        """Report an entry that an archive cannot hold: of an unknown kind, or with a negative size."""
        mode = status.st_mode
        if mode & FORMAT == FILE:
            self._report(SourceError(path, f"has the size {status.st_size}"))
        elif mode & FORMAT != SOCKET:
            self._report(SourceError(path, f"has the mode {mode:o}, a kind of entry that cannot be stored"))
        elif self._only is not None and path in self._only:
            self._report(SourceError(path, "is a socket, which has no content"))
        else:  # it has no meaning without its process
            self._on_skip(Skipped(path, "socket"))

    def _look_again(self, path: bytes, fd: int, missed: list[bytes], found: dict[bytes, bytes]) -> None:
        """Read the status of entries again: ignore those that are gone, report those that are still listed."""
        listed: set[bytes] | None = None
        for name in missed:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    listed = _names(fd) if listed is None else listed
                    if name not in listed:
                        continue
                self._report(SourceError.of(join(path, name), error))
                continue
            if status.st_mode & FORMAT in {FOLDER, FILE} | OTHERS and status.st_size >= 0:
                found[name] = row_of(status, self.device(status.st_dev)).pack()
            else:
                self._leave_out(join(path, name), status)

    def _selected(self, path: bytes, fd: int, entries: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The entries of a directory that are backed up, in the order of their names."""
        named = self._named.get(path, set())
        for name in sorted(named - entries.keys()):
            if self._told.isdisjoint((path, join(path, name))):
                self._report(SourceError(join(path, name), os.strerror(errno.ENOENT)))
        whole = self._only is None or not self._only.isdisjoint((path, *_above(path)))
        whole = whole and path not in self._left_out
        reason = self._reason_to_empty(fd, entries) if whole else None
        if reason is not None:
            self._on_skip(Skipped(path, reason))
        if not whole or reason is not None:
            entries = {name: row for name, row in entries.items() if name in named}
        found = sorted(entries.items())
        if named:
            return [each for each in found if self._meets(path, each, whole=whole and reason is None)]
        select = self._select
        if select is None:
            return found
        rows = [(name, row, ROW.unpack(row)) for name, row in found]
        return [(name, row) for name, row, facts in rows if select(join(path, name), facts[0], facts[5])]

    def _reason_to_empty(self, fd: int, entries: dict[bytes, bytes]) -> str | None:
        """The reason why a directory is taken as empty; None if it is not."""
        if not self._markers.isdisjoint(entries):
            return "marked as excluded"
        if self._without_caches and CACHE_TAG in entries and _is_cache(fd):
            return "a cache"
        return None

    def _meets(self, path: bytes, found: tuple[bytes, bytes], *, whole: bool) -> bool:
        """Whether an entry is backed up, in a directory above a path of `only`. Notes the paths of `only` that are met.

        `whole` means that all of the directory is backed up, except the entries that `select` leaves out.
        """
        name, row = found
        child = join(path, name)
        self._unmet.discard(child)
        facts = ROW.unpack(row)
        selected = self._select is None or self._select(child, facts[0], facts[5])
        if child not in self._leading or (self._only is not None and child in self._only):
            return selected
        if not (whole and selected):
            self._left_out.add(child)
        return True


def _names(fd: int) -> set[bytes]:
    """The names in a directory; empty if it can no longer be listed."""
    try:
        return set(map(os.fsencode, os.listdir(fd)))
    except OSError:
        return set()


def _close(level: _Level) -> None:
    """Close a directory, and note its device and inode to recognise it later."""
    try:
        level.device_and_inode = _device_and_inode(level.fd)
    except OSError:
        return  # it stays open
    os.close(level.fd)
    level.fd = -1


def _opened_along(start: int, names: Iterable[bytes]) -> int:
    """Open a directory by its names from an open one. Raises OSError."""
    fd = -1
    try:
        for name in names:
            above, fd = fd, open_without_atime(name, DIRECTORY_FLAGS, fd if fd >= 0 else start)
            if above >= 0:
                os.close(above)
    except OSError:
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def _is_cache(fd: int) -> bool:
    """Whether a directory has a valid cache tag: a regular file that begins with the signature."""
    try:
        tag = os.open(CACHE_TAG, CACHE_TAG_FLAGS, dir_fd=fd)
        try:
            return stat.S_ISREG(os.fstat(tag).st_mode) and os.pread(tag, len(CACHE_SIGNATURE), 0) == CACHE_SIGNATURE
        finally:
            os.close(tag)
    except OSError:
        return False  # so the directory is backed up


def _device_and_inode(fd: int) -> tuple[int, int]:
    """Device and inode of an open file."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _folders(directory: Directory) -> list[bytes]:
    return [name for name, row in zip(directory.names, directory.rows, strict=True) if is_folder(row)]


def is_folder(row: bytes) -> bool:
    """Whether a packed row is that of a directory: its second byte has the bits of the mode for the kind."""
    return row[1] & FORMAT_BYTE == FOLDER_BYTE


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def join(path: bytes, name: bytes) -> bytes:
    """The path of an entry in the directory at `path`, which is empty for the root."""
    return path + b"/" + name if path else name


def open_without_atime(name: bytes, flags: int, parent: int | None) -> int:
    """Open a file without changing its access time, if this user may do that."""
    try:
        return os.open(name, flags | NO_ATIME, dir_fd=parent)
    except PermissionError:
        return os.open(name, flags, dir_fd=parent)

"""Removal of directory trees from a restore's target: any depth, one open directory at a time, never across a mount."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.agent.source.walk import join

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MOUNTED = "another file system is mounted here; --delete did not touch it"
ReportProblem = Callable[[bytes, str], None]
"""Takes the path of an entry that was not removed, from the removed name on, and the reason."""
IsSpared = Callable[[bytes, bool], bool]
"""Returns whether an entry is to stay, given its path and whether it is a directory."""


class Mount(NamedTuple):
    """Identifies a mount. The id is 0 if the kernel does not tell it; then bind mounts are not noticed."""

    device: int
    mount_id: int

    @classmethod
    def of(cls, fd: int) -> Mount:
        """The mount of an open directory."""
        return cls(os.fstat(fd).st_dev, _mount_id(fd))


@dataclass(slots=True)
class _Level:
    """A directory about to be removed, with the names that are left to handle, and whether an entry in it stays."""

    name: bytes
    path: bytes
    status: os.stat_result
    left: list[bytes]
    keeps: bool = False


def remove_tree(
    parent: int, name: bytes, report_problem: ReportProblem, *, spared: IsSpared | None = None, dry_run: bool = False
) -> int:
    """Remove an entry of the directory `parent` and everything below it; return how many entries were removed.

    Symlinks are not followed. An entry that cannot be removed, or on which a file system is mounted, is reported; all
    other entries are removed. A dry run only counts.
    """
    return _Removal(parent, report_problem, spared, dry_run=dry_run).remove(name)


class _Removal:
    """One call of `remove_tree`."""

    def __init__(self, parent: int, report_problem: ReportProblem, spared: IsSpared | None, *, dry_run: bool) -> None:
        self._parent = parent
        self._mount = Mount.of(parent)
        self._report_problem = report_problem
        self._spared = spared
        self._dry_run = dry_run
        self._removed = 0

    def remove(self, name: bytes) -> int:
        opened = self._enter(self._parent, name, name, None)
        if opened is None:
            return self._removed
        fd, level = opened
        levels = [level]
        try:
            while levels:
                here = levels[-1]
                if here.left:
                    below = here.left.pop()
                    opened = self._enter(fd, below, join(here.path, below), here)
                    if opened is not None:
                        os.close(fd)
                        fd, level = opened
                        levels.append(level)
                    continue
                levels.pop()
                if levels:
                    fd = self._parent_of(fd, levels)
                is_kept = here.keeps or not self._remove_empty(fd if levels else self._parent, here)
                if levels:
                    levels[-1].keeps |= is_kept
        except OSError as error:
            self._report_problem(levels[-1].path if levels else name, error.strerror or str(error))
        finally:
            os.close(fd)
        return self._removed

    def _enter(self, parent: int, name: bytes, path: bytes, above: _Level | None) -> tuple[int, _Level] | None:
        """Remove an entry that is not a directory, or open a directory; note in `above` if the entry stays."""
        fd = -1
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            reason = None
            if self._spared is None or not self._spared(path, is_directory):
                if not is_directory:
                    if not self._dry_run:
                        os.unlink(name, dir_fd=parent)
                    self._removed += 1
                    return None
                fd = os.open(name, FLAGS, dir_fd=parent)
                if Mount.of(fd) == self._mount:
                    return fd, self._level(fd, name, path)
                reason = MOUNTED
        except OSError as error:
            if fd < 0 and error.errno == errno.ENOENT:  # another process removed it
                return None
            reason = error.strerror or str(error)
        if fd >= 0:
            os.close(fd)
        if reason is not None:
            self._report_problem(path, reason)
        if above is not None:
            above.keeps = True
        return None

    def _level(self, fd: int, name: bytes, path: bytes) -> _Level:
        return _Level(name, path, os.fstat(fd), [os.fsencode(below) for below in os.listdir(fd)])

    def _parent_of(self, fd: int, levels: list[_Level]) -> int:
        """Return the directory above an open one, and close that one."""
        try:
            above = os.open("..", FLAGS, dir_fd=fd)
        except OSError:  # without search permission, not even `..` can be opened
            above = self._reopen(levels)
        with ExitStack() as stack:
            stack.callback(os.close, above)
            if not os.path.samestat(os.fstat(above), levels[-1].status):
                raise OSError(errno.ESTALE, "another process moved the folder during its removal")
            stack.pop_all()
        os.close(fd)
        return above

    def _reopen(self, levels: list[_Level]) -> int:
        fd = os.dup(self._parent)
        for level in levels:
            try:
                below = os.open(level.name, FLAGS, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _remove_empty(self, parent: int, level: _Level) -> bool:
        """Remove an empty directory; return whether it is gone."""
        try:
            if not self._dry_run:
                os.rmdir(level.name, dir_fd=parent)
        except OSError as error:
            self._report_problem(level.path, error.strerror or str(error))
            return False
        self._removed += 1
        return True


def _mount_id(fd: int) -> int:
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
            return next((int(line[7:]) for line in lines if line.startswith(b"mnt_id:")), 0)
    except OSError:
        return 0


@contextmanager
def temporary_name(parent: int, name: bytes) -> Iterator[None]:
    """Remove the entry under a temporary name at the end of the context, unless it was renamed by then."""
    try:
        yield
    finally:
        with suppress(
            FileNotFoundError
        ):  # the kernel ignores a rename between two links to one file, so the name may still exist
            os.unlink(name, dir_fd=parent)

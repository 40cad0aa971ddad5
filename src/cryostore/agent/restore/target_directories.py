"""Directories of a restore's target, opened by number.

Each directory is opened relative to its parent and never through a symlink, never by a path. Neither an archive nor a
user who changes the target meanwhile can lead the restore out of it. If another user could have replaced a directory,
each open compares it with the directory that the restore created or found.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryostore.agent.errors import TargetError
from cryostore.core.process_resources import open_file_limit

OPEN_MAX = 256
OPEN_MIN = 8
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROOT = 0
ANYBODY = frozenset({-1})
"""Replacers of a directory whose mode lets other users than its owner change it."""


def replacers_of(directory: os.stat_result) -> frozenset[int]:
    """Return the users who can rename or replace entries of a directory. Root can everywhere and is left out."""
    if directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not directory.st_mode & stat.S_ISVTX:
        return ANYBODY
    return frozenset({directory.st_uid} - {0})


def passes_nothing_on(made: os.stat_result, name: bytes, parent: int) -> bool:
    """Return whether a directory that was just created passes neither group nor ACL on to entries created in it."""
    if made.st_mode & stat.S_ISGID or made.st_gid != os.getegid():  # some file systems always pass the group on
        return False
    try:
        names = os.listxattr(b"/proc/self/fd/%d/%s" % (parent, name), follow_symlinks=False)
    except OSError:
        return False
    return not any(attribute.startswith("system.posix_acl") for attribute in names)


def is_new(made: os.stat_result, name: bytes, parent: int) -> bool:
    """Return whether a directory is the one that this process just created, not one that another user put there.

    Raises OSError. An empty directory of this user cannot be told apart; mistaking it for the new one loses nothing.
    """
    fd = os.open(name, FLAGS, dir_fd=parent)
    try:
        found = os.fstat(fd)
        return os.path.samestat(found, made) and found.st_uid == os.geteuid() and not os.listdir(fd)
    finally:
        os.close(fd)


@dataclass(slots=True)
class _Open:
    """An open directory and its number of users."""

    fd: int
    users: int = 0


class TargetDirectories:
    """Directories by number; the root is 0. Thread safe."""

    def __init__(self, root: bytes, *, create: bool = True) -> None:
        """Open the root; with `create`, create it if it does not exist.

        Without `create`, a missing root counts as created, and no directory in it may be opened. Raises TargetError if
        the root is not a directory and cannot be created.
        """
        self.name = os.fsdecode(root)
        try:
            self.root_is_created = not os.path.lexists(root)
            if self.root_is_created and create:
                os.makedirs(root, mode=0o700)
            fd = os.open(root, FLAGS & ~os.O_NOFOLLOW) if create or not self.root_is_created else -1
        except OSError as error:
            raise TargetError.of(root, error) from error
        try:
            status = os.fstat(fd) if fd >= 0 else None
        except OSError as error:
            os.close(fd)
            raise TargetError.of(root, error) from error
        self._parents = [-1]
        self._names = [b""]
        self._created = bytearray([self.root_is_created])
        self._passes_nothing_on = bytearray([False])
        self._user = frozenset({os.geteuid()})
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open] = OrderedDict({ROOT: _Open(fd, 1)} if fd >= 0 else {})
        self._devices = array("Q", [status.st_dev if status else 0])
        self._inodes = array("Q", [status.st_ino if status else 0])
        self._replacers = [replacers_of(status) - self._user if status else frozenset()]
        soft = open_file_limit()
        self._open_max = max(min(OPEN_MAX, soft // 4), OPEN_MIN) if soft > 0 else OPEN_MAX

    def add(
        self, parent: int, name: bytes, status: os.stat_result | None, *, created: bool, passes_nothing_on: bool = False
    ) -> int:
        """Number a directory in directory `parent`. It exists; only in a dry run it may not.

        `passes_nothing_on` means that this restore created it and that entries created in it inherit neither group nor
        ACL.
        """
        self._parents.append(parent)
        self._names.append(name)
        self._created.append(created)
        self._passes_nothing_on.append(passes_nothing_on)
        self._devices.append(status.st_dev if status else 0)
        self._inodes.append(status.st_ino if status else 0)
        own = replacers_of(status) - self._user if status else frozenset()
        replacers = self._replacers[parent]
        self._replacers.append(replacers if own <= replacers else replacers | own)
        return len(self._names) - 1

    def parent(self, number: int) -> int:
        """Return the number of a directory's parent."""
        return self._parents[number]

    def replacers(self, number: int) -> frozenset[int]:
        """Return the users, besides root and this one, who can replace a directory or its entries."""
        return self._replacers[number]

    def is_created(self, number: int) -> bool:
        """Return whether this restore created the directory, so that it was empty."""
        return bool(self._created[number])

    def passes_nothing_on(self, number: int) -> bool:
        """Return whether entries created in the directory inherit nothing from it."""
        return bool(self._passes_nothing_on[number])

    def path(self, number: int) -> bytes:
        """Return the path of a directory below the root, for messages."""
        names = []
        while number != ROOT:
            names.append(self._names[number])
            number = self._parents[number]
        return b"/".join(reversed(names))

    @contextmanager
    def at(self, number: int) -> Iterator[int]:
        """Keep a directory open for the duration of the context; yield its descriptor. Raises OSError."""
        with self._lock:
            opened = self._acquire(number)
        try:
            yield opened.fd
        finally:
            with self._lock:
                opened.users -= 1

    def _acquire(self, number: int) -> _Open:
        missing = []
        above = number
        while above not in self._open:
            if above < ROOT:
                raise OSError(errno.EBADF, "the target is closed")
            missing.append(above)
            above = self._parents[above]
        opened = self._open[above]
        for below in reversed(missing):
            opened.users += 1  # so that `_make_room` cannot close it
            try:
                self._make_room()
                child = _Open(self._checked(below, self._opened(self._names[below], opened.fd)))
            finally:
                opened.users -= 1
            self._open[below] = opened = child
        self._open.move_to_end(number)
        opened.users += 1
        return opened

    def _opened(self, name: bytes, parent: int) -> int:
        try:
            return os.open(name, FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._open_max = max(len(self._open) // 2, OPEN_MIN)
        while len(self._open) >= self._open_max and self._close_one():
            pass
        return os.open(name, FLAGS, dir_fd=parent)

    def _checked(self, number: int, fd: int) -> int:
        """Return the descriptor if it is the directory with this number. Raises OSError if it is another one."""
        try:
            found = os.fstat(fd) if self._replacers[self._parents[number]] else None
        except OSError:
            os.close(fd)
            raise
        if found and (found.st_dev, found.st_ino) != (self._devices[number], self._inodes[number]):
            os.close(fd)
            raise OSError(errno.ESTALE, "another process replaced the folder during the restore")
        return fd

    def _make_room(self) -> None:
        if len(self._open) >= self._open_max:
            self._close_one()

    def _close_one(self) -> bool:
        for number, opened in self._open.items():
            if not opened.users:
                os.close(opened.fd)
                del self._open[number]
                return True
        return False

    def close(self) -> None:
        """Close all open directories."""
        with self._lock:
            for opened in self._open.values():
                os.close(opened.fd)
            self._open.clear()

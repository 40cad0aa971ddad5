"""The directories of a restore's target.

Nothing is reached by a path: each is opened in its parent, and never through a symlink, so that neither an archive nor
somebody who changes the target meanwhile leads the restore out of it. A directory that somebody else could have
replaced is compared, each time that it is opened, with the one that the restore made or found.
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
from cryostore.core.open_files import open_file_limit

OPEN_MAX = 256
OPEN_MIN = 8
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROOT = 0
ANYBODY = frozenset({-1})
"""As the masters of a directory: its mode lets others than its owner change it."""


def replacers_of(directory: os.stat_result) -> frozenset[int]:
    """The users who can rename or replace what is in a directory; root can everywhere and is left out."""
    if directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not directory.st_mode & stat.S_ISVTX:
        return ANYBODY
    return frozenset({directory.st_uid} - {0})


def is_plain(made: os.stat_result, name: bytes, parent: int) -> bool:
    """Whether a directory that was just made hands nothing down to what is made in it: no group, no ACL."""
    if made.st_mode & stat.S_ISGID or made.st_gid != os.getegid():  # some file systems hand it down by themselves
        return False
    try:
        names = os.listxattr(b"/proc/self/fd/%d/%s" % (parent, name), follow_symlinks=False)
    except OSError:
        return False
    return not any(attribute.startswith("system.posix_acl") for attribute in names)


def is_new(made: os.stat_result, name: bytes, parent: int) -> bool:
    """Whether a directory is one that this user just made and not another one that somebody put there. Raises OSError.

    An empty one of this user would not be told apart, and nothing is lost if it is taken for the new one.
    """
    fd = os.open(name, FLAGS, dir_fd=parent)
    try:
        found = os.fstat(fd)
        return os.path.samestat(found, made) and found.st_uid == os.geteuid() and not os.listdir(fd)
    finally:
        os.close(fd)


@dataclass(slots=True)
class _Open:
    """A directory that is open, and by how many it is used."""

    fd: int
    users: int = 0


class TargetDirectories:
    """Directories by number, the root being 0. Thread safe. `fresh` ones were made by this restore."""

    def __init__(self, root: bytes, *, create: bool = True) -> None:
        """Raises TargetError if the root is no directory and cannot be made one.

        Without `create` a root that is not there counts as made; then nothing in it may be opened.
        """
        self.name = os.fsdecode(root)
        try:
            self.made = not os.path.lexists(root)
            if self.made and create:
                os.makedirs(root, mode=0o700)
            fd = os.open(root, FLAGS & ~os.O_NOFOLLOW) if create or not self.made else -1
        except OSError as error:
            raise TargetError.of(root, error) from error
        try:
            status = os.fstat(fd) if fd >= 0 else None
        except OSError as error:
            os.close(fd)
            raise TargetError.of(root, error) from error
        self._parents = [-1]
        self._names = [b""]
        self._fresh = bytearray([self.made])
        self._plain = bytearray([False])
        self._user = frozenset({os.geteuid()})
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open] = OrderedDict({ROOT: _Open(fd, 1)} if fd >= 0 else {})
        self._devices = array("Q", [status.st_dev if status else 0])
        self._inodes = array("Q", [status.st_ino if status else 0])
        self._masters = [replacers_of(status) - self._user if status else frozenset()]
        soft = open_file_limit()
        self._open_max = max(min(OPEN_MAX, soft // 4), OPEN_MIN) if soft > 0 else OPEN_MAX

    def add(self, parent: int, name: bytes, status: os.stat_result | None, *, fresh: bool, plain: bool = False) -> int:
        """Number a directory that exists in the one numbered `parent`; in a dry run it may be yet to be made.

        A `plain` one was made by this restore and hands neither group nor ACL down to what is made in it.
        """
        self._parents.append(parent)
        self._names.append(name)
        self._fresh.append(fresh)
        self._plain.append(plain)
        self._devices.append(status.st_dev if status else 0)
        self._inodes.append(status.st_ino if status else 0)
        own = replacers_of(status) - self._user if status else frozenset()
        masters = self._masters[parent]
        self._masters.append(masters if own <= masters else masters | own)
        return len(self._names) - 1

    def parent(self, number: int) -> int:
        """The number of the directory that a directory is in."""
        return self._parents[number]

    def masters(self, number: int) -> frozenset[int]:
        """The users, beside root and this one, who can replace what is in a directory, or the directory itself."""
        return self._masters[number]

    def fresh(self, number: int) -> bool:
        """Whether this restore made the directory, so that nothing was in it."""
        return bool(self._fresh[number])

    def plain(self, number: int) -> bool:
        """Whether what is made in the directory gets nothing from it."""
        return bool(self._plain[number])

    def path(self, number: int) -> bytes:
        """The path of a directory below the root, for people."""
        names = []
        while number != ROOT:
            names.append(self._names[number])
            number = self._parents[number]
        return b"/".join(reversed(names))

    @contextmanager
    def at(self, number: int) -> Iterator[int]:
        """The descriptor of a directory, for as long as the context lasts. Raises OSError."""
        with self._lock:
            opened = self._acquire(number)
        try:
            yield opened.fd
        finally:
            with self._lock:
                opened.users -= 1

    def _acquire(self, number: int) -> _Open:
        missing = []
        place = number
        while place not in self._open:
            if place < ROOT:
                raise OSError(errno.EBADF, "the target is closed")
            missing.append(place)
            place = self._parents[place]
        opened = self._open[place]
        for below in reversed(missing):
            opened.users += 1  # so that making room cannot close it
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
        """The descriptor, of the directory that has this number. Raises OSError if it is another one."""
        try:
            found = os.fstat(fd) if self._masters[self._parents[number]] else None
        except OSError:
            os.close(fd)
            raise
        if found and (found.st_dev, found.st_ino) != (self._devices[number], self._inodes[number]):
            os.close(fd)
            raise OSError(errno.ESTALE, "somebody replaced the folder while it was restored")
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
        """Close all that is open."""
        with self._lock:
            for opened in self._open.values():
                os.close(opened.fd)
            self._open.clear()

"""The directories of a restore's target.

Nothing is reached by a path: each is opened in its parent, and never through a symlink, so that no archive, and no one
who changes the target meanwhile, leads the restore out of it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryostore.agent.errors import TargetError

OPEN_MAX = 256
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ROOT = 0


def is_plain(name: bytes, parent: int) -> bool:
    """Whether a directory that was just made hands nothing down to what is made in it: no group, no ACL.

    Raises OSError.
    """
    made = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if made.st_mode & stat.S_ISGID or made.st_gid != os.getegid():  # some file systems hand it down by themselves
        return False
    try:
        names = os.listxattr(b"/proc/self/fd/%d/%s" % (parent, name), follow_symlinks=False)
    except OSError:
        return False
    return not any(attribute.startswith("system.posix_acl") for attribute in names)


@dataclass(slots=True)
class _Open:
    """A directory that is open, and by how many it is used."""

    fd: int
    users: int = 0


class Target:
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
        self._parents = [-1]
        self._names = [b""]
        self._fresh = bytearray([self.made])
        self._plain = bytearray([False])
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open] = OrderedDict({ROOT: _Open(fd, 1)} if fd >= 0 else {})

    def add(self, parent: int, name: bytes, *, fresh: bool, plain: bool = False) -> int:
        """Number a directory that exists in the one numbered `parent`.

        A `plain` one was made by this restore and hands neither group nor ACL down to what is made in it.
        """
        self._parents.append(parent)
        self._names.append(name)
        self._fresh.append(fresh)
        self._plain.append(plain)
        return len(self._names) - 1

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
                child = _Open(os.open(self._names[below], FLAGS, dir_fd=opened.fd))
            finally:
                opened.users -= 1
            self._open[below] = opened = child
        self._open.move_to_end(number)
        opened.users += 1
        return opened

    def _make_room(self) -> None:
        if len(self._open) < OPEN_MAX:
            return
        for number, opened in self._open.items():
            if not opened.users:
                os.close(opened.fd)
                del self._open[number]
                return

    def close(self) -> None:
        """Close all that is open."""
        with self._lock:
            for opened in self._open.values():
                os.close(opened.fd)
            self._open.clear()

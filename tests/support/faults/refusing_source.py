"""A source whose file system refuses one system call on one entry, with a given errno."""

from __future__ import annotations

import contextlib
import os
from unittest import mock

_readlink = os.readlink
BY_NAME = ("open", "stat", "readlink")
BY_FD = ("fstat", "readv", "preadv", "lseek")
BY_EITHER = ("listxattr", "getxattr", "scandir")
CALLS = (*BY_NAME, *BY_FD, *BY_EITHER)


class RefusingSource:
    """Refuses `call` on the entry at `target` with `errno`, `times` times at most. `stat` stands for all its forms."""

    def __init__(self, target, call, errno, times):
        self.target = os.fsencode(target)
        self.call = call
        self.errno = errno
        self.left = times
        self.refused = 0

    @contextlib.contextmanager
    def refusing(self):
        """Refuse while the context lasts."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(os, self.call, self._wrapped(getattr(os, self.call))))
            if self.call == "stat":
                stack.enter_context(mock.patch.object(os, "scandir", self._listing(os.scandir)))
            yield

    def _wrapped(self, real):
        def wrapped(place, *arguments, **options):
            if self._is_target(place, options.get("dir_fd")):
                self._refuse()
            return real(place, *arguments, **options)

        return wrapped

    def _refuse(self):
        if self.left:
            self.left -= 1
            self.refused += 1
            raise OSError(self.errno, os.strerror(self.errno))

    def _is_target(self, place, folder):
        if isinstance(place, int):
            return _path_of(place) == self.target
        place = os.fsencode(place)
        if folder is not None:
            place = _path_of(folder) + b"/" + place
        elif place.startswith(b"/proc/self/fd/"):
            fd, _, name = place.removeprefix(b"/proc/self/fd/").partition(b"/")
            place = _path_of(int(fd)) + b"/" + name
        return os.path.normpath(place) == self.target

    def _listing(self, real):
        @contextlib.contextmanager
        def listing(fd):
            with real(fd) as entries:
                yield (_Entry(self, entry, _path_of(fd)) for entry in entries)

        return listing


class _Entry:
    def __init__(self, source, entry, folder):
        self.source = source
        self.entry = entry
        self.name = entry.name
        self.path = folder + b"/" + os.fsencode(entry.name)

    def stat(self, **options):
        if self.path == self.source.target:
            self.source._refuse()
        return self.entry.stat(**options)


def _path_of(fd):
    try:
        return os.fsencode(_readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        return b""

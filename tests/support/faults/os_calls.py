"""System calls of a restore with changed results: a case-insensitive file system, and calls that fail."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager

REAL = {
    name: getattr(os, name)
    for name in (
        "open",
        "stat",
        "mkdir",
        "unlink",
        "rmdir",
        "rename",
        "link",
        "symlink",
        "mkfifo",
        "mknod",
        "readlink",
        "listdir",
        "listxattr",
        "getxattr",
        "setxattr",
        "removexattr",
        "chown",
        "chmod",
        "utime",
        "pwrite",
        "pread",
        "ftruncate",
        "fsync",
        "fstat",
    )
}
NAMED = ("open", "stat", "mkdir", "unlink", "rmdir", "rename", "link", "symlink", "mkfifo", "mknod", "readlink")
"""The calls that take names in a directory."""


def _found(name, directory):
    """Return the name that a case-insensitive directory lists for this one."""
    if directory is None:
        return name
    listed = map(os.fsencode, REAL["listdir"](directory))
    wanted = os.fsencode(name)
    return next((each for each in listed if each.lower() == wanted.lower()), wanted)


@contextmanager
def case_blind(monkeypatch):
    """While the context lasts, directories that are reached by a descriptor are case-insensitive."""
    lock = threading.RLock()

    def changed(name):
        def call(*arguments, **named):
            with lock:
                given = list(arguments)
                if name in ("rename", "link"):
                    given[0] = _found(given[0], named.get("src_dir_fd"))
                    given[1] = _found(given[1], named.get("dst_dir_fd"))
                elif name == "symlink":
                    given[1] = _found(given[1], named.get("dir_fd"))
                elif "dir_fd" in named:
                    given[0] = _found(given[0], named["dir_fd"])
                return REAL[name](*given, **named)

        return call

    with monkeypatch.context() as patch:
        for name in NAMED:
            patch.setattr(os, name, changed(name))
        yield


@contextmanager
def failing(monkeypatch, name, code, *, at=None):
    """While the context lasts, call number `at` of this name fails with an error number.

    Without `at` all of them do. Gives a list of the arguments of all calls.
    """
    calls = []
    lock = threading.Lock()

    def call(*arguments, **named):
        if not sys._getframe(1).f_globals["__name__"].startswith("cryostore.agent."):
            return REAL[name](*arguments, **named)
        with lock:
            number = len(calls)
            calls.append(arguments)
        if at is None or number == at:
            raise OSError(code, os.strerror(code))
        return REAL[name](*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield calls

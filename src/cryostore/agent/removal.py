"""Removing from a target: a tree, however deep it is, of which one directory is open at a time; what is half made."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory that is about to be removed: what it is, and the names in it that are left."""

    name: bytes
    status: os.stat_result
    left: list[bytes]


def remove_tree(parent: int, name: bytes, *, dry_run: bool = False) -> int:
    """Remove what a name stands for, without following a symlink; answers how many that were. Raises OSError.

    A dry run only counts.
    """
    is_leaf = _is_other if dry_run else _is_unlinked
    if is_leaf(parent, name):
        return 1
    removed = 0
    fd = os.open(name, FLAGS, dir_fd=parent)
    try:
        levels = [_level(fd, name)]
        while levels:
            here = levels[-1]
            if here.left:
                below = here.left.pop()
                if is_leaf(fd, below):
                    removed += 1
                else:
                    fd = _instead(fd, os.open(below, FLAGS, dir_fd=fd))
                    levels.append(_level(fd, below))
                continue
            levels.pop()
            if levels:
                fd = _instead(fd, os.open("..", FLAGS, dir_fd=fd))
                if not os.path.samestat(os.fstat(fd), levels[-1].status):  # somebody moved it meanwhile
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            if not dry_run:
                os.rmdir(here.name, dir_fd=fd if levels else parent)
            removed += 1
    finally:
        os.close(fd)
    return removed


@contextmanager
def passing(parent: int, name: bytes) -> Iterator[None]:
    """After the context the name stands for nothing, whatever was made under it; unless it took another one by then."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # two names of one file stay as they are, and so does the passing one
            os.unlink(name, dir_fd=parent)


def _is_unlinked(parent: int, name: bytes) -> bool:
    """Remove what is no directory; tells whether it was none."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        return False
    return True


def _is_other(parent: int, name: bytes) -> bool:
    """Whether a name stands for no directory."""
    return not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _level(fd: int, name: bytes) -> _Level:
    return _Level(name, os.fstat(fd), [os.fsencode(below) for below in os.listdir(fd)])


def _instead(old: int, new: int) -> int:
    os.close(old)
    return new

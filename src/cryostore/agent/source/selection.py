"""Selection of source entries: the root of the tree that is backed up, and the entries below it that are left out.

`rooted` finds the root from the paths of the command line. `Selection` leaves out entries by patterns and sizes.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryostore.agent.source.patterns import Patterns
from cryostore.agent.source.walk import join
from cryostore.core.errors import ConfigurationError

FOLDER_NAMES = (b"", b".", b"..")
"""Last components of a path that names a folder, even behind a symlink."""
EXCLUDED = "excluded by a pattern"
TOO_LARGE = "larger than wanted"


class Roots(NamedTuple):
    """The root of a tree, and the paths below it that are backed up. `only` is None for the whole tree.

    `only` has the empty path if the whole root is backed up and paths below it were named too.
    """

    root: bytes
    only: frozenset[bytes] | None


def rooted(paths: Sequence[bytes], listed: Sequence[bytes] = ()) -> Roots:
    """The smallest tree that holds all of the paths. A single folder is its own root.

    A walk follows no symlink below its root. So if a symlink leads to a path, or a path of `paths` is a symlink to a
    folder, its target is backed up, and the symlink too if it was named. `listed` are paths that a program listed: a
    symlink among them stays a symlink, unless a slash follows it.

    A path that does not exist counts too: neither the name of a recovery point nor the location of a file in it depends
    on that, and the walk reports the path. Raises ConfigurationError if none of the paths exists.
    """
    if b"" in paths:  # an unset variable of a script, which must not become the current directory
        raise ConfigurationError("a PATH is empty", hint="use `.` for the current directory")
    whole = {_absolute(path) for path in (*paths, *listed)}
    root = os.path.commonpath(whole)
    if len(whole) > 1:
        folders = {path for path in _folders(paths, listed) if os.path.islink(path) and os.path.isdir(path)}
        if folders - {root} or _symlink_between(root, whole):
            whole = {_resolved(path) for path in whole} | {os.path.realpath(path) for path in folders}
            root = os.path.commonpath(whole)
    _require_something(whole)
    if whole == {root} and os.path.isdir(root):
        return Roots(root, None)
    if root in whole and not os.path.isdir(root):
        root = os.path.dirname(root)
    return Roots(root, frozenset(path[len(root.rstrip(b"/")) + 1 :] for path in whole))


def _absolute(path: bytes) -> bytes:
    """The absolute path. As for the system, `..` after a symlink is the folder above its target."""
    return os.path.abspath(_resolved(path) if b".." in path.split(b"/") else path)


def _resolved(path: bytes) -> bytes:
    """The path with all symlinks resolved except its last component."""
    above, name = os.path.split(path)
    return os.path.realpath(path) if name in FOLDER_NAMES else os.path.join(os.path.realpath(above), name)


def _folders(paths: Iterable[bytes], listed: Iterable[bytes]) -> set[bytes]:
    """The absolute paths that mean the folder if they are a symlink to one."""
    return {
        *map(_absolute, paths),
        *(_absolute(path) for path in listed if os.path.basename(path) in FOLDER_NAMES),
    }


def _symlink_between(root: bytes, whole: Iterable[bytes]) -> bool:
    """Whether one of the paths leads through a symlink below the root."""
    top = os.path.realpath(root)
    above = {os.path.dirname(path) for path in whole if path != root}
    return any(os.path.realpath(path) != os.path.join(top, os.path.relpath(path, root)) for path in above - {root})


def _require_something(whole: Iterable[bytes]) -> None:
    """Raise ConfigurationError if none of the paths can be backed up."""
    first = ""
    for path in sorted(whole):
        reason = _fault(path)
        if reason is None:
            return
        first = first or f"{os.fsdecode(path)!a} {reason}"
    raise ConfigurationError(first, hint="there is nothing to back up")


def _fault(path: bytes) -> str | None:
    """The reason why a path cannot be backed up; None if it can."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is a socket, which has no content" if stat.S_ISSOCK(mode) else None


class Selection:
    """Leaves out the entries below each PATH that patterns name, and files that are too large.

    It never leaves out a PATH.

    `only` has the PATHs relative to `root`; None if the root is the only PATH. `skipped` counts the entries left out,
    by reason. A folder counts as one entry, whatever it holds.
    """

    def __init__(
        self,
        root: bytes,
        patterns: Sequence[str],
        bytes_max: int | None = None,
        skipped: Counter[str] | None = None,
        *,
        only: frozenset[bytes] | None = None,
    ) -> None:
        """Raises ConfigurationError for a malformed pattern."""
        self._root = root
        self._only = only
        self._patterns = Patterns(patterns) if patterns else None
        self._bytes_max = bytes_max
        self._skipped = Counter() if skipped is None else skipped

    def __call__(self, path: bytes, mode: int, size: int) -> bool:
        if self._bytes_max is not None and size > self._bytes_max and stat.S_ISREG(mode):
            self._skipped[TOO_LARGE] += 1
            return False
        if self._patterns is None or not self._names(path, is_directory=stat.S_ISDIR(mode)):
            return True
        self._skipped[EXCLUDED] += 1
        return False

    def _names(self, path: bytes, *, is_directory: bool) -> bool:
        assert self._patterns is not None
        top = self._path_of(path)
        if top is None:
            return False
        below = path[len(top) :].lstrip(b"/") if top else path
        place = join(self._root.rstrip(b"/"), top) if top else self._root
        return bool(self._patterns.decide(below, is_directory=is_directory, top=place))

    def _path_of(self, path: bytes) -> bytes | None:
        """The PATH that holds an entry, relative to the root; None if the entry is a PATH itself, or above one."""
        if self._only is None:
            return b""
        above = path
        while above not in self._only:
            if not above:
                return None
            above = above.rpartition(b"/")[0]
        return None if above == path else above

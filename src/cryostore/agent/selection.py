"""Which entries of the source are wanted: the roots that were named, patterns, sizes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from cryostore.agent.patterns import Patterns
from cryostore.core.errors import ConfigurationError


class Selection:
    """Leaves out what patterns name, by its path from the top of the file system, and files that are too large."""

    def __init__(self, root: bytes, patterns: Sequence[str], bytes_max: int | None = None) -> None:
        """Raises ConfigurationError for what is no pattern."""
        self._root = root.rstrip(b"/") + b"/"
        self._patterns = Patterns(patterns) if patterns else None
        self._bytes_max = bytes_max

    def __call__(self, path: bytes, mode: int, size: int) -> bool:
        if self._bytes_max is not None and size > self._bytes_max and stat.S_ISREG(mode):
            return False
        return self._patterns is None or not self._patterns.fit(self._root + path, is_directory=stat.S_ISDIR(mode))


def rooted(paths: Sequence[bytes]) -> tuple[bytes, frozenset[bytes] | None]:
    """The root of the tree that holds all of the paths, and what of it is wanted: all of it, if None.

    One folder is its own root. Raises ConfigurationError for a path that does not exist.
    """
    whole = sorted({os.path.abspath(path) for path in paths})
    for path in whole:
        if not os.path.lexists(path):
            raise ConfigurationError(f"{os.fsdecode(path)!a} does not exist")
    if len(whole) == 1 and os.path.isdir(whole[0]):
        return whole[0], None
    root = os.path.commonpath(whole)
    if root in whole and os.path.isdir(root):
        return root, None
    if root in whole:
        root = os.path.dirname(root)
    return root, frozenset(path[len(root.rstrip(b"/")) + 1 :] for path in whole)

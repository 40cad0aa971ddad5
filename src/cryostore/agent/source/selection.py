"""Selection of source entries by patterns and sizes."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Sequence

from cryostore.agent.source.patterns import Patterns
from cryostore.agent.source.walk import join

EXCLUDED = "excluded by a pattern"
TOO_LARGE = "larger than wanted"


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

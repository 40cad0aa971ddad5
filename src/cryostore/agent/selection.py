"""Which entries of the source are wanted, by patterns and sizes."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Sequence

from cryostore.agent.patterns import Patterns

EXCLUDED = "excluded by a pattern"
TOO_LARGE = "larger than wanted"


class Selection:
    """Leaves out what patterns name, by its path from the top of the file system, and files that are too large.

    It counts them in `skipped`, by reason. A folder is one entry, whatever is in it.
    """

    def __init__(
        self, root: bytes, patterns: Sequence[str], bytes_max: int | None = None, skipped: Counter[str] | None = None
    ) -> None:
        """Raises ConfigurationError for what is no pattern."""
        self._root = root.rstrip(b"/") + b"/"
        self._patterns = Patterns(patterns) if patterns else None
        self._bytes_max = bytes_max
        self._skipped = Counter() if skipped is None else skipped

    def __call__(self, path: bytes, mode: int, size: int) -> bool:
        if self._bytes_max is not None and size > self._bytes_max and stat.S_ISREG(mode):
            self._skipped[TOO_LARGE] += 1
            return False
        if self._patterns is None or not self._patterns.fit(self._root + path, is_directory=stat.S_ISDIR(mode)):
            return True
        self._skipped[EXCLUDED] += 1
        return False

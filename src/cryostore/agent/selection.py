"""Which entries of the source are wanted, by patterns and sizes."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from cryostore.agent.patterns import Patterns


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

"""Patterns that name paths, as .gitignore writes them. The only home of the pattern library.

A pattern that begins with a slash is a path from the top; any other fits at every depth. A later pattern that begins
with `!` takes back what an earlier one named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from cryostore.core.errors import ConfigurationError


class Patterns:
    """Some patterns, in order. Raises ConfigurationError for one that is no pattern."""

    def __init__(self, lines: Iterable[str]) -> None:
        kept = [_anywhere(line) for line in lines]
        try:
            self._spec = GitIgnoreSpec.from_lines(kept)
        except (ValueError, re.error) as error:
            hint = "patterns are written as .gitignore has them"
            raise ConfigurationError(f"a pattern cannot be read: {error}", hint=hint) from None

    def fit(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether they name this path, or a directory that it is in. A leading slash makes no difference."""
        text = os.fsdecode(path).lstrip("/")
        return bool(text) and self._spec.match_file(text + "/" if is_directory else text)


def _anywhere(line: str) -> str:
    """A pattern with a slash in its middle would otherwise fit at the top alone."""
    mark, pattern = ("!", line[1:]) if line.startswith("!") else ("", line)
    if pattern.startswith(("/", "#", "**/")) or "/" not in pattern.rstrip("/"):
        return line
    return f"{mark}**/{pattern}"

"""The root of the tree that some paths make."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryostore.core.errors import ConfigurationError


def rooted(paths: Sequence[bytes]) -> tuple[bytes, frozenset[bytes] | None]:
    """The root of the tree that holds all of the paths, and what of it is wanted: all of it, if None.

    One folder is its own root. Raises ConfigurationError for a path that does not exist.
    """
    if b"" in paths:  # an unset variable of a script, which must not become the current directory
        raise ConfigurationError("a PATH is empty", hint="`.` is the current directory")
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

"""The root of the tree that some paths make."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from cryostore.agent.errors import SourceError
from cryostore.core.errors import ConfigurationError


class Roots(NamedTuple):
    """The root of a tree, what of it is wanted (all of it, if None), and the paths that cannot be backed up.

    A walk names what it misses of `only` by itself: `missing` are the others.
    """

    root: bytes
    only: frozenset[bytes] | None
    missing: list[SourceError]


def rooted(paths: Sequence[bytes]) -> Roots:
    """The tree that holds all of the paths. One folder is its own root.

    A path that is not there counts, too: neither the name of a recovery point nor the place of a file in it depends on
    that. Raises ConfigurationError if nothing is there.
    """
    if b"" in paths:  # an unset variable of a script, which must not become the current directory
        raise ConfigurationError("a PATH is empty", hint="`.` is the current directory")
    whole = sorted({os.path.abspath(path) for path in paths})
    missing = {path: reason for path in whole if (reason := _fault(path)) is not None}
    if len(missing) == len(whole):
        path = whole[0]
        raise ConfigurationError(f"{os.fsdecode(path)!a} {missing[path]}", hint="there is nothing to back up")
    root = os.path.commonpath(whole)
    if root in whole and os.path.isdir(root):
        left = [SourceError(path[len(root.rstrip(b"/")) + 1 :], reason) for path, reason in missing.items()]
        return Roots(root, None, left)
    if root in whole:
        root = os.path.dirname(root)
    only = frozenset(path[len(root.rstrip(b"/")) + 1 :] for path in whole)
    return Roots(root, only, [])


def _fault(path: bytes) -> str | None:
    """Why a path cannot be backed up; None if it can."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is a socket, which has no content" if stat.S_ISSOCK(mode) else None

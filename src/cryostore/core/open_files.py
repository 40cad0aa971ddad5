"""Limit on the open files and connections of this process."""

from __future__ import annotations

import resource
from contextlib import suppress


def open_file_limit() -> int:
    """How many files and connections this process may have open now; negative for no limit. It can change any time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def raise_open_file_limit() -> None:
    """Raise the limit as far as the system allows: for connections, and for the directories that a walk keeps open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""The limit on open files of a process."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_open_file_limit() -> None:
    """Raise this process's limit on open files and connections to the most that the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

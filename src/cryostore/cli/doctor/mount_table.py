"""Which file system a path lies on, as the kernel's table of mounts says it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/self/mounts")


class MountPoint(NamedTuple):
    """A line of the table."""

    path: str
    kind: str
    options: frozenset[str]


def mount_of(path: Path, table: Path = TABLE) -> MountPoint | None:
    """The file system that holds `path`; None where there is no such table."""
    real = os.path.realpath(path)
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    for line in lines:
        _, place, kind, options, *_ = line.split(" ")
        place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place)
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and (found is None or len(place) >= len(found.path)):  # a later line lies above an earlier one
            found = MountPoint(place, kind, frozenset(options.split(",")))
    return found

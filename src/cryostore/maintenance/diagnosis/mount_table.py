"""The file system of a path, from the kernel's mount table."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

TABLE = Path("/proc/self/mounts")


class MountPoint(NamedTuple):
    """One line of the table."""

    path: str
    kind: str
    options: frozenset[str]


def mount_of(path: Path, table: Path = TABLE) -> MountPoint | None:
    """Return the file system that holds `path`; None if this system has no mount table."""
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

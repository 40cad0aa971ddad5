"""An entry of a recovery point for programs, whatever bytes are in its name."""

from __future__ import annotations

import base64
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryostore.agent.archive.listing import ArchiveEntry


def path_facts(path: bytes) -> dict[str, str]:
    """A path: `path` is text, in which each byte that is no UTF-8 is a lone surrogate, as in Python.

    For one with such bytes, `path_base64` has the bytes themselves: not every reader of JSON takes lone surrogates.
    """
    found = {"path": os.fsdecode(path)}
    try:
        path.decode()
    except UnicodeDecodeError:
        found["path_base64"] = base64.b64encode(path).decode()
    return found


def entry_facts(entry: ArchiveEntry) -> dict[str, Any]:
    """What is known of an entry beside its path."""
    row = entry.row
    return {
        "mode": stat.filemode(row.mode),
        "uid": row.uid,
        "gid": row.gid,
        "size": row.size,
        "mtime_ns": row.mtime_ns,
    }

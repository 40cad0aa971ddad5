"""The state folder of this user: what a run of the agent writes down for later runs.

It holds, for each store in a directory, the file system on which that store was. So no second store is made in an empty
mount point while the disk of the first one is not mounted.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cryostore.core.errors import ConfigurationError


def state_folder() -> Path | None:
    """Return the folder, which may not exist yet; None for a user without a home."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    try:
        folder = folder.expanduser()
    except RuntimeError:
        return None
    return folder / "cryostore" if folder.is_absolute() else None


def file_name_of(store_name: str) -> str:
    """Return the name that files about a store have in the state folder."""
    return hashlib.sha256(store_name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def remember_file_system(data_dir: Path) -> None:
    """Record the file system of the store in `data_dir`. An error of the state folder is ignored."""
    record = _record_of(data_dir)
    if record is None:
        return
    with suppress(OSError):
        device = _device(data_dir)
        if _read(record) != device:
            record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            record.write_text(device, encoding="ascii")


def require_same_file_system(data_dir: Path) -> None:
    """Before a store is made in `data_dir`: raise ConfigurationError if one was there on another file system.

    A store that was deleted in place may be made again.
    """
    record = _record_of(data_dir)
    remembered = None if record is None else _read(record)
    if remembered is not None and remembered != _device(data_dir):
        raise ConfigurationError(
            f"there was a store in {data_dir}, on another file system",
            hint=f"mount its disk; if the disk is gone for good, remove {record}, and a new store is made",
        )


def _record_of(data_dir: Path) -> Path | None:
    folder = state_folder()
    return folder / "stores" / file_name_of(str(data_dir.absolute())) if folder else None


def _read(record: Path) -> str | None:
    try:
        return record.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _device(data_dir: Path) -> str:
    """Return the device number of the file system that holds a directory, or would hold it once it is made."""
    for folder in (data_dir, *data_dir.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            return str(folder.stat().st_dev)
    return ""

"""Who else may write or read the files that a server trusts: refused, naming the mode, before anything is served."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryostore.core.errors import ConfigurationError

OTHERS_WRITE = 0o002
GROUP_AND_OTHERS_WRITE = 0o022
ALL_BUT_OWNER = 0o077
NOT_GROUP_READ = 0o037


def require_own_directory(data_dir: Path) -> None:
    """Refuse a data directory in which others could put or replace files, if it is there.

    Raises ConfigurationError.
    """
    if not data_dir.is_dir():
        return
    try:
        paths = [data_dir, *(Path(entry.path) for entry in os.scandir(data_dir) if not entry.is_symlink())]
        for path in paths:
            _refuse(path, path.stat().st_mode, GROUP_AND_OTHERS_WRITE, "other users may write to it", "go-w")
    except OSError as error:
        raise ConfigurationError(f"{data_dir} cannot be read: {error.strerror}") from error


def require_own_key(path: Path, option: str) -> None:
    """Refuse a private key that others may read. One of root may be read by its group, as distributions share keys.

    Raises ConfigurationError.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{option} names a file that cannot be read: {path}: {error.strerror}") from error
    forbidden = ALL_BUT_OWNER if status.st_uid else NOT_GROUP_READ
    _refuse(path, status.st_mode, forbidden, f"other users may read or replace the key of {option}", "go-rwx")


def require_own_configuration(path: Path, mode: int, *, names_command: bool) -> None:
    """Refuse a configuration file that others may write: what it says is done. Raises ConfigurationError."""
    forbidden = GROUP_AND_OTHERS_WRITE if names_command else OTHERS_WRITE
    what = "names a command, and" if names_command else "says what a server does, and"
    _refuse(path, mode, forbidden, f"it {what} other users may write to it", "go-w")


def _refuse(path: Path, mode: int, forbidden: int, why: str, change: str) -> None:
    mode = stat.S_IMODE(mode)
    if mode & forbidden:
        raise ConfigurationError(f"{path} has the mode {mode:04o}: {why}", hint=f"chmod {change} {path}")

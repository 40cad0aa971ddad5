"""Permission checks of files that a server trusts: its data directory, TLS key and configuration file."""

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
    """Raise ConfigurationError if other users could add or replace files in a data directory that exists."""
    if not data_dir.is_dir():
        return
    try:
        paths = [data_dir, *(Path(entry.path) for entry in os.scandir(data_dir) if not entry.is_symlink())]
        for path in paths:
            _refuse(path, path.stat().st_mode, GROUP_AND_OTHERS_WRITE, "other users may write to it", "go-w")
    except OSError as error:
        raise ConfigurationError(f"{data_dir} cannot be read: {error.strerror}") from error


def require_own_key(path: Path, option: str) -> None:
    """Raise ConfigurationError if other users may read a private key.

    The group may read a key of root, because distributions share keys that way.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{option} names a file that cannot be read: {path}: {error.strerror}") from error
    forbidden = ALL_BUT_OWNER if status.st_uid else NOT_GROUP_READ
    _refuse(path, status.st_mode, forbidden, f"other users may read or replace the key of {option}", "go-rwx")


def require_own_configuration(path: Path, mode: int, *, names_command: bool) -> None:
    """Raise ConfigurationError if other users may write a configuration file: the server would obey them."""
    forbidden = GROUP_AND_OTHERS_WRITE if names_command else OTHERS_WRITE
    content = "names a command" if names_command else "configures a server"
    _refuse(path, mode, forbidden, f"it {content}, and other users may write to it", "go-w")


def _refuse(path: Path, mode: int, forbidden: int, why: str, change: str) -> None:
    mode = stat.S_IMODE(mode)
    if mode & forbidden:
        raise ConfigurationError(f"{path} has mode {mode:04o}: {why}", hint=f"chmod {change} {path}")

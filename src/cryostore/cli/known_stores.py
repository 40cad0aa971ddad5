"""On which file system each store in a directory was, so that none is made anew where a disk is not mounted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryostore.core.errors import ConfigurationError


def note(mark: Path, data_dir: Path) -> None:
    """Note where a store is, as far as notes can be taken."""
    with suppress(OSError):
        device = _device(data_dir)
        if _noted(mark) != device:
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.write_text(device, encoding="ascii")


def check(mark: Path, data_dir: Path) -> None:
    """Before a store is made: raise ConfigurationError if there was one, on a file system that is not there now.

    One that was deleted where it stood is made again.
    """
    noted = _noted(mark)
    if noted is not None and noted != _device(data_dir):
        raise ConfigurationError(
            f"there was a store in {data_dir}, on another file system",
            hint=f"mount its disk; if it is gone for good, remove {mark}, and a new store is made",
        )


def _noted(mark: Path) -> str | None:
    try:
        return mark.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _device(data_dir: Path) -> str:
    """The file system that a directory is on, or would be made on."""
    for place in (data_dir, *data_dir.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            return str(place.stat().st_dev)
    return ""

"""Copies of data directories, with the modes that git does not keep."""

from __future__ import annotations

from pathlib import Path


def copied(data_dir: Path, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Copy a store so that a service can open it: directories 0700, files 0600, without some names. Return `target`."""
    target.mkdir(parents=True, mode=0o700)
    for path in sorted(data_dir.rglob("*")):
        place = target / path.relative_to(data_dir)
        if path.is_dir():
            place.mkdir(mode=0o700)
        elif path.name not in without:
            place.write_bytes(path.read_bytes())
            place.chmod(0o600)
    return target

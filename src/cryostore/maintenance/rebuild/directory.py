"""Rebuild of the catalog of a store in a directory: built in a file of its own, then put in place in one step."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cryostore.catalog import open_catalog
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.durable_files import storage_errors, sync_directory
from cryostore.chunks.keyring import Keyring
from cryostore.core.errors import ConfigurationError
from cryostore.core.time import Clock
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.service.opening.in_use import sole_use
from cryostore.service.opening.open import CATALOG

MAKING = "catalog.rebuilding"
ASIDE = "replaced"
NUMBERED = re.compile(rf"{re.escape(CATALOG)}(?:-wal|-shm)?\.{ASIDE}\.([0-9]{{1,9}})(?![0-9])")
"""A name that begins with this pattern takes its number, whatever follows."""
PARTS = ("", "-wal", "-shm")
"""The suffixes of the files of an SQLite database. A log left behind would be taken for the new catalog's log."""


def rebuild_directory(
    data_dir: Path, keyring: Keyring, outcome: RebuildResult, *, clock: Clock, replace: bool = False
) -> Iterator[Progress]:
    """Rebuild the catalog of `data_dir` from its packs and records, step by step.

    Nothing that exists changes before the last step. An interrupted rebuild leaves a file that the next one removes.
    With `replace`, an existing catalog is kept beside the new one.

    Raises ConfigurationError if there is a catalog (without `replace`) or the directory is in use, KeyUnavailableError
    if the keyring opens no record, StorageUnavailableError.
    """
    with sole_use(data_dir):
        if (data_dir / CATALOG).exists() and not replace:
            raise ConfigurationError(
                f"{data_dir / CATALOG} exists",
                hint="--replace keeps it beside the new one; `cryo check` shows its problems",
            )
        with storage_errors(f"{data_dir}"):
            _remove(data_dir)
        blobs = open_blobs(data_dir)
        database = open_catalog(data_dir / MAKING)
        try:
            yield from Rebuild(database, blobs, keyring, outcome, now_ms=clock()).run()
        finally:
            database.close()
            blobs.close()
        with storage_errors(f"{data_dir}"):
            _put_in_place(data_dir)


def _remove(data_dir: Path) -> None:
    """Remove the files that an interrupted rebuild has left."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{MAKING}{part}").unlink()


def _numbers_aside(data_dir: Path) -> Iterator[int]:
    """Yield the numbers under which earlier catalogs are kept, whatever an operator has added to their names."""
    for path in data_dir.glob(f"{CATALOG}*.{ASIDE}.*"):
        if found := re.match(NUMBERED, path.name):
            yield int(found[1])


def _put_in_place(data_dir: Path) -> None:
    if (data_dir / f"{MAKING}-wal").exists():
        raise ConfigurationError(
            f"{data_dir / MAKING} is used by another program", hint="stop that program and try again"
        )
    number = 1 + max(_numbers_aside(data_dir), default=0)
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{CATALOG}{part}").rename(data_dir / f"{CATALOG}{part}.{ASIDE}.{number}")
        # One by one: the old catalog must never be there without its log, nor its log beside the new catalog.
        sync_directory(data_dir)
    descriptor = os.open(data_dir / MAKING, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (data_dir / MAKING).rename(data_dir / CATALOG)
    sync_directory(data_dir)

"""The files around `rebuild`: the new catalog is made beside the data, and takes its place in one step."""

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
"""Names that begin so are taken, whatever follows."""
PARTS = ("", "-wal", "-shm")
"""What SQLite adds to the name of a database. A log left behind would be taken for the new catalog's own."""


def rebuild_directory(
    data_dir: Path, keyring: Keyring, outcome: RebuildResult, *, clock: Clock, replace: bool = False
) -> Iterator[Progress]:
    """Make the catalog of `data_dir` anew from its packs and records, step by step.

    Until the last step nothing that is there changes; a rebuilding that was broken off leaves a file that the next one
    removes. With `replace` a catalog that is there is kept beside the new one.

    Raises ConfigurationError if there is a catalog or the directory is in use, KeyUnavailableError if the keyring
    opens nothing, StorageUnavailableError.
    """
    with sole_use(data_dir):
        if (data_dir / CATALOG).exists() and not replace:
            raise ConfigurationError(
                f"{data_dir / CATALOG} is there",
                hint="--replace keeps it beside the new one; `cryo check` says what is wrong with it",
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
    """Remove what an earlier rebuilding left."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{MAKING}{part}").unlink()


def _numbers_aside(data_dir: Path) -> Iterator[int]:
    """The numbers that earlier catalogs were kept under, with whatever else an operator added to their names."""
    for path in data_dir.glob(f"{CATALOG}*.{ASIDE}.*"):
        if found := re.match(NUMBERED, path.name):
            yield int(found[1])


def _put_in_place(data_dir: Path) -> None:
    if (data_dir / f"{MAKING}-wal").exists():
        raise ConfigurationError(f"{data_dir / MAKING} is used by another program", hint="end it and try again")
    number = 1 + max(_numbers_aside(data_dir), default=0)
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{CATALOG}{part}").rename(data_dir / f"{CATALOG}{part}.{ASIDE}.{number}")
        # One by one: the old catalog must never stand there without its log, nor its log beside the new catalog.
        sync_directory(data_dir)
    descriptor = os.open(data_dir / MAKING, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (data_dir / MAKING).rename(data_dir / CATALOG)
    sync_directory(data_dir)

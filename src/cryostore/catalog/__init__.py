"""The catalog: all metadata, in transactions. One file per noun, each statement written once.

Liveness is decided by rows here, never by file times, clocks of clients or listings. Knows nothing of blobs or HTTP.
"""

from __future__ import annotations

from pathlib import Path

from cryostore.catalog.database import Database


def open_catalog(path: Path) -> Database:
    """Open the catalog in the SQLite file at `path`, create it if absent, and bring its schema up to date."""
    from cryostore.catalog.sqlite import SqliteDatabase  # noqa: PLC0415 - engines are imported where they are opened

    database = SqliteDatabase(path)
    try:
        database.migrate()
    except BaseException:
        database.close()  # whoever tries again opens the file anew, and must be the only one in this process
        raise
    return database

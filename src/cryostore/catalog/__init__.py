"""The catalog: the database that holds all metadata of a store.

One file per noun, each SQL statement written once for all engines. Rows decide whether something is alive, never file
times, clocks of clients or listings. The catalog knows nothing of blobs or HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryostore.catalog.database import Database
from cryostore.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cryostore.catalog.postgres.engine import PostgresDatabase
    from cryostore.catalog.sqlite.engine import SqliteDatabase

POSTGRES = ("postgresql://", "postgres://")


class NoCatalogError(ConfigurationError):
    """The database can be reached but holds no catalog."""


def open_catalog(place: Path | str, *, create: bool = True, migrate: bool = True) -> Database:
    """Open the catalog at `place`: create it if it is absent, and migrate its schema to the newest version.

    `place` is the path of an SQLite file, or the `postgresql://` URL of an existing PostgreSQL database. With
    `create=False` a database without a catalog is refused and left unchanged. With `migrate=False`, for readers, the
    schema is left unchanged, too. Raises ConfigurationError, StorageUnavailableError, DamagedDataError.
    """
    database: PostgresDatabase | SqliteDatabase
    if isinstance(place, str) and place.startswith(POSTGRES):
        from cryostore.catalog.postgres.engine import PostgresDatabase  # noqa: PLC0415 - engines are imported where opened

        database = PostgresDatabase(place)
    else:
        from cryostore.catalog.sqlite.engine import SqliteDatabase  # noqa: PLC0415 - as above

        database = SqliteDatabase(Path(place))
    try:
        if not create:
            _require_schema(database)
        if migrate:
            database.migrate()
    except BaseException:
        database.close()  # a retry opens the file again, and a process may open it only once
        raise
    return database


def _require_schema(database: PostgresDatabase | SqliteDatabase) -> None:
    if not database.has_schema():
        raise NoCatalogError("the database holds no catalog", hint="prepare the store once: cryo init --help")

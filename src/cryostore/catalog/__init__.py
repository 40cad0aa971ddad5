"""The catalog: all metadata, in transactions. One file per noun, each statement written once.

Liveness is decided by rows here, never by file times, clocks of clients or listings. Knows nothing of blobs or HTTP.
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
    """The place can be reached, and holds no catalog."""


def open_catalog(place: Path | str, *, create: bool = True, migrate: bool = True) -> Database:
    """Open the catalog at `place`, make it if it is absent, and bring its schema up to date.

    Without `create` a database that holds no catalog is refused, and stays as it is. Without `migrate` the schema stays
    as it is, too: for whoever only looks.

    A path names a file of SQLite, a `postgresql://` URL a database of PostgreSQL, which must exist. Raises
    ConfigurationError, StorageUnavailableError, DamagedDataError.
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
        database.close()  # whoever tries again opens the file anew, and must be the only one in this process
        raise
    return database


def _require_schema(database: PostgresDatabase | SqliteDatabase) -> None:
    if not database.has_schema():
        raise NoCatalogError("the database holds no catalog", hint="prepare the store once: cryo init --help")

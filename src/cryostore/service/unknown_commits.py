"""Unknown commits: commits with a record beside the blobs that the catalog lacks, since it was restored from a copy.

Such a catalog lacks the recovery points that were acknowledged after the copy was made. `cryo rebuild-catalog` brings
them back as long as their records and chunks exist. So catalog and records are compared when a store is opened, and
before every garbage collection. While commits are unknown, the store can be read and backed up to, and nothing is
removed:

1. No garbage is collected, no point or vault is deleted, and no record is written again.
2. A backup starts a lineage of its own, and takes only numbers that no record has. So a rebuild finds both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from typing import NoReturn

from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import lineages, records
from cryostore.catalog.rows.records import COMMIT, VAULT, RecordKey
from cryostore.catalog.tables import TABLES, count_from, highest_number
from cryostore.chunks.records import Records
from cryostore.core.errors import StorageUnavailableError

HINT = "run `cryo rebuild-catalog` to bring them back: --replace in a directory, an empty database for a shared store"
NAMES_PER_READ = 500
NAMES_AT_OPENING = 10_000
"""Names compared when a store is opened; garbage collection, `cryo check` and `cryo doctor` compare all."""
KEYS_LEFT_OUT = 1000
LISTS_LEFT_OUT = 1_000_000_000
"""Numbers of keys and of chunk lists that are skipped, since unknown records that cannot be read may use them."""
_log = logging.getLogger(__name__)


class OutdatedCatalogError(StorageUnavailableError):
    """The catalog lacks commits of the store, so nothing may be removed."""

    def __init__(self, count: int) -> None:
        super().__init__(unknown_commits_message(count), hint=HINT)


def unknown_commits_message(count: int) -> str:
    """The message for operators."""
    return f"{count} commits are in the store and not in this catalog, which is older than the store: rebuild it"


def find_unknown_commits(database: Database, on_record: Records, *, limit: int | None = None) -> Iterator[RecordKey]:
    """The commits with a record that the catalog lacks, among the first `limit` names.

    Raises StorageUnavailableError.
    """
    for key in _unknown(database, on_record, COMMIT, limit):
        # A generation below the tip of its lineage was rolled back; no rebuild counts it.
        lineage = database.read(partial(lineages.find, lineage_id=key.number))
        if lineage is None or key.generation > lineage.tip_generation:
            yield key


def _unknown(database: Database, on_record: Records, noun: str, limit: int | None) -> Iterator[RecordKey]:
    names = islice(on_record.names(noun), limit)
    found = (key for key, _ in groupby(names, key=lambda name: RecordKey(*name[:3])))
    while some := list(islice(found, NAMES_PER_READ)):
        known = set(database.read(partial(records.between_keys, first=some[0], last=some[-1])))
        for key in some:
            # The row is written before the record, and removed after it.
            if key not in known and database.read(partial(records.find, key=key)) is None and on_record.holds(*key):
                yield key


def count_unknown_commits(database: Database, on_record: Records, *, limit: int | None = None) -> int:
    """Count the unknown commits, and note the number in the catalog for all processes. Returns the number.

    The number never falls: a catalog that lacked commits must be replaced by a rebuilt one.
    """
    unknown = list(find_unknown_commits(database, on_record, limit=limit))
    before = database.read(collections.unknown_commits)
    count = max(len(unknown), before)
    if count:
        _log.error("%s; %s", unknown_commits_message(count), HINT)
    if count != before:
        vaults = list(_unknown(database, on_record, VAULT, None)) if unknown else []
        database.write(partial(_note, count=count, unknown=[*unknown, *vaults], first=not before))
    return count


def _note(transaction: Transaction, count: int, unknown: list[RecordKey], *, first: bool) -> None:
    collections.set_unknown_commits(transaction, count)
    tables = {table.name: table for table in TABLES}
    for table, noun in (("lineage", COMMIT), ("vault", VAULT)):
        highest = max((key.number for key in unknown if key.noun == noun), default=0)
        if highest:
            count_from(transaction, tables[table], highest)
    if first and unknown:
        for table, left_out in (("vault_key", KEYS_LEFT_OUT), ("upload", LISTS_LEFT_OUT)):
            count_from(transaction, tables[table], highest_number(transaction, tables[table]) + left_out)


def require_no_unknown_commits(transaction: Transaction) -> None:
    """Raise OutdatedCatalogError if commits are unknown."""
    if count := collections.unknown_commits(transaction):
        raise OutdatedCatalogError(count)


def refuse_taken_number(database: Database, on_record: Records) -> NoReturn:
    """Raise OutdatedCatalogError: a record with the number of a new commit exists, so an unknown commit used it."""
    count = max(count_unknown_commits(database, on_record), 1)
    database.write(partial(collections.set_unknown_commits, count=count))
    raise OutdatedCatalogError(count)

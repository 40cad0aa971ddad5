"""Commits that are on record beside the blobs and not in the catalog: the catalog was put back from an older copy.

Such a catalog knows nothing of recovery points that were acknowledged after the copy was made. `cryo rebuild-catalog`
brings them back, for as long as their records and chunks are there. So whoever opens a store, and every collection,
compares the two. While commits are unknown, the store can be read and backed up, and nothing is taken away:

1. No garbage is collected, no point or vault is deleted, and no record is written again.
2. A backup begins a lineage of its own, and takes only numbers that no record has. So a rebuild finds both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from typing import NoReturn

from cryostore.catalog import sequences
from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import lineages, records
from cryostore.catalog.rows.records import COMMIT, VAULT, RecordKey
from cryostore.catalog.tables import TABLES
from cryostore.chunks.records import Records
from cryostore.core.errors import StorageUnavailableError

HINT = "run `cryo rebuild-catalog` to bring them back: --replace in a directory, an empty database for a shared store"
NAMES_PER_READ = 500
NAMES_AT_OPENING = 10_000
"""So many names are compared when a store is opened; a collection, `cryo check` and `cryo doctor` compare all."""
KEYS_LEFT_OUT = 1000
LISTS_LEFT_OUT = 1_000_000_000
"""So many numbers of keys and of chunk lists are left out: unknown records may name them, and cannot all be read."""
_log = logging.getLogger(__name__)


class OutdatedCatalogError(StorageUnavailableError):
    """The catalog lacks commits that the store has, so nothing may be taken away."""

    def __init__(self, count: int) -> None:
        super().__init__(unknown_commits_message(count), hint=HINT)


def unknown_commits_message(count: int) -> str:
    """What is wrong, for people."""
    return f"{count} commits are in the store and not in this catalog, which is older than the store: rebuild it"


def find_unknown_commits(database: Database, on_record: Records, *, limit: int | None = None) -> Iterator[RecordKey]:
    """The commits on record that the catalog does not have, among the first `limit` names.

    Raises StorageUnavailableError.
    """
    for key in _unknown(database, on_record, COMMIT, limit):
        # What lies below the tip of a lineage was taken back, and no rebuild counts it.
        lineage = database.read(partial(lineages.find, lineage_id=key.number))
        if lineage is None or key.generation > lineage.tip_generation:
            yield key


def _unknown(database: Database, on_record: Records, noun: str, limit: int | None) -> Iterator[RecordKey]:
    names = islice(on_record.names(noun), limit)
    found = (key for key, _ in groupby(names, key=lambda name: RecordKey(*name[:3])))
    while some := list(islice(found, NAMES_PER_READ)):
        known = set(database.read(partial(records.between_keys, first=some[0], last=some[-1])))
        for key in some:
            # Its row is written before the record, and removed after it.
            if key not in known and database.read(partial(records.find, key=key)) is None and on_record.holds(*key):
                yield key


def count_unknown_commits(database: Database, on_record: Records, *, limit: int | None = None) -> int:
    """Count the unknown commits and note it in the catalog, where all processes see it; answers how many there are.

    What was noted once stays: a catalog that lacked commits never becomes right again, only another one is.
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
            sequences.count_from(transaction, tables[table], highest)
    if first and unknown:
        for table, left_out in (("vault_key", KEYS_LEFT_OUT), ("upload", LISTS_LEFT_OUT)):
            sequences.count_from(transaction, tables[table], sequences.highest(transaction, tables[table]) + left_out)


def require_no_unknown_commits(transaction: Transaction) -> None:
    """Raise OutdatedCatalogError if commits are unknown."""
    if count := collections.unknown_commits(transaction):
        raise OutdatedCatalogError(count)


def refuse_taken_number(database: Database, on_record: Records) -> NoReturn:
    """Raise OutdatedCatalogError, since the record of a new commit is there already: it is of an unknown one."""
    count = max(count_unknown_commits(database, on_record), 1)
    database.write(partial(collections.set_unknown_commits, count=count))
    raise OutdatedCatalogError(count)

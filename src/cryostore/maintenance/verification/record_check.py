"""Check of the records from which the catalog can be rebuilt, against the catalog, both ways.

A missing or damaged record can be written again as long as the catalog exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from cryostore.catalog.processes import epoch as epochs
from cryostore.catalog.rows import records
from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey, RecordRow
from cryostore.chunks.records import RecordName
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError, StorageUnavailableError
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.finding_kinds import Findings
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from cryostore.service import Context
from cryostore.service.records.format import CommitRecord, StoreRecord, VaultRecord, decode
from cryostore.service.records.recording import update_record
from cryostore.service.records.unknown_commits import find_unknown_commits, unknown_commits_message

ROWS_PER_PAGE = 200
KINDS: dict[str, Any] = {STORE: StoreRecord, VAULT: VaultRecord, COMMIT: CommitRecord}


class RecordCheck:
    """Checks all records of a store. Only `write_anew` changes anything."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys = OpenedKeys(context)

    def check(self, findings: Findings) -> Iterator[Progress]:
        """Report missing and damaged records, and records that the catalog does not know."""
        for done, row in enumerate(self._rows()):
            yield Progress("records", done)
            problem = self._problem(row)
            if problem is not None and self._find(row.key) == row:  # else it was written again or removed meanwhile
                findings.add(finding_kinds.RECORD_DAMAGED, f"{_words(row.key)}: {problem}")
        unknown = set(find_unknown_commits(self._context.database, self._context.records))
        if unknown:
            findings.add(finding_kinds.COMMIT_UNKNOWN, unknown_commits_message(len(unknown)), count=0)
        for key in sorted(unknown):
            findings.add(finding_kinds.COMMIT_UNKNOWN, _words(key))
        for name in self._context.records.names():
            # A record is removed before its row, so a record without a row belongs to nothing.
            if (
                not name.part
                and name[:3] not in unknown
                and self._find(RecordKey(*name[:3])) is None
                and self._context.records.has(name)
            ):
                findings.add(finding_kinds.RECORD_UNKNOWN, _words(RecordKey(*name[:3])))

    def write_anew(self, *, dry_run: bool) -> Iterator[RecordKey]:
        """Write each missing or damaged record again from the catalog, and yield its key."""
        if self._context.database.read(epochs.unknown_commits):
            return  # a rebuild needs the records as they are
        for row in self._rows():
            if self._problem(row) is None:
                continue
            if not dry_run:
                self._context.database.write(partial(records.touch_known, key=row.key))
                update_record(self._context, row.key)
            yield row.key

    def _rows(self) -> Iterator[RecordRow]:
        after = RecordKey("")
        while rows := self._context.database.read(partial(records.page, after=after, limit=ROWS_PER_PAGE)):
            yield from (row for row in rows if row.recorded and not row.gone)
            after = rows[-1].key

    def _find(self, key: RecordKey) -> RecordRow | None:
        return self._context.database.read(partial(records.find, key=key))

    def _problem(self, row: RecordRow) -> str | None:
        """Return the problem of a finished record; None if it is sound or cannot be checked now."""
        for part in range(row.parts):
            name = RecordName(*row.key, row.recorded, part)
            try:
                decode(self._data(name), KINDS[row.noun])
            except BlobNotFoundError:
                return "it is missing"
            except DamagedDataError as error:
                return error.message
            except (KeyUnavailableError, StorageUnavailableError):
                return None
        return None

    def _data(self, name: RecordName) -> bytes:
        if name.noun != COMMIT:
            return self._context.records.get_wrapped(name)
        return self._context.records.get(name, self._keys.key_of)


def _words(key: RecordKey) -> str:
    return {
        STORE: "the record of the store",
        VAULT: f"the record of vault {key.number}",
        COMMIT: f"the record of commit {key.number}.{key.generation}",
    }.get(key.noun, f"a record of {key.noun!a} {key.number}")

"""What master keys are needed for: everything they have wrapped, in the catalog and in the records beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryostore.catalog.rows import keys, records
from cryostore.catalog.rows.keys import WRAPPED, WrappedRow
from cryostore.catalog.rows.records import COMMIT, RecordKey, RecordRow
from cryostore.chunks.keyring import wrapped_key_id
from cryostore.chunks.records import RecordName
from cryostore.core.errors import BlobNotFoundError, KeyUnavailableError
from cryostore.service import Context

ROWS_PER_PAGE = 100
RECORD = "record"
DAMAGED = ""
"""Stands for the id of the master key where nobody can tell it."""


@dataclass
class KeyUses:
    """What master keys are needed for: how many things of each kind, by the id of the key; and what is not written."""

    by_key: dict[str, Counter[str]] = field(default_factory=dict)
    due: int = 0

    def count(self, key_id: str, kind: str) -> None:
        """Count one more thing."""
        self.by_key.setdefault(key_id, Counter())[kind] += 1


def count_key_uses(context: Context) -> KeyUses:
    """What each master key is needed for: rows of the catalog, by table, and records.

    A key that is missing here is needed by nothing in this store, once no record is due, and nothing will be wrapped
    with it unless it is the active one of the keyring.
    """
    found = KeyUses()
    for table in WRAPPED:
        for rows in wrapped_pages(context, table):
            for row in rows:
                found.count(wrapped_by(row.wrapped), table)
    for record_row in wrapped_records(context):
        found.due += record_row.recorded < record_row.changes
        key_id = recorded_by(context, record_row)
        if key_id is not None:
            found.count(key_id, RECORD)
    return found


def wrapped_pages(context: Context, table: str) -> Iterator[list[WrappedRow]]:
    """The wrapped rows of a table, in pages."""
    after = None
    while rows := context.database.read(
        lambda transaction: keys.wrapped_page(transaction, table, after, ROWS_PER_PAGE)  # noqa: B023 - runs at once
    ):
        yield rows
        after = rows[-1].name


def wrapped_records(context: Context) -> Iterator[RecordRow]:
    """Every record that a master key wraps: all but those of commits, which data keys seal."""
    after = RecordKey(COMMIT, 2**63 - 1, 2**63 - 1)
    while rows := context.database.read(
        lambda transaction: records.page(transaction, after, ROWS_PER_PAGE)  # noqa: B023 - runs at once
    ):
        yield from rows
        after = rows[-1].key


def recorded_by(context: Context, row: RecordRow) -> str | None:
    """The id of the key that wraps a record; None if there is none, or another one has taken its place just now."""
    if not row.parts:
        return None
    try:
        return wrapped_by(context.records.wrapped(RecordName(*row.key, row.recorded, 0)))
    except BlobNotFoundError:
        return None


def wrapped_by(wrapped: bytes) -> str:
    """The id of the key that has wrapped something."""
    try:
        return wrapped_key_id(wrapped)
    except KeyUnavailableError:
        return DAMAGED

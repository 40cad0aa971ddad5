"""Uses of master keys: the catalog rows and records that each key wraps."""

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
"""Stands for the id of a master key that cannot be read because the wrapped bytes are damaged."""


@dataclass
class KeyUses:
    """Uses by key id and kind. `due` counts the records that are to be written, whose keys may still change."""

    by_key: dict[str, Counter[str]] = field(default_factory=dict)
    due: int = 0

    def count(self, key_id: str, kind: str) -> None:
        """Count one more use."""
        self.by_key.setdefault(key_id, Counter())[kind] += 1


def count_key_uses(context: Context) -> KeyUses:
    """Count the uses of each master key: catalog rows by table, and records.

    Once no record is due, nothing in this store needs a key that has no uses. Nor will anything be wrapped with such a
    key, unless it is the active key of the keyring.
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
    """Yield the wrapped rows of a table, page by page."""
    after = None
    while rows := context.database.read(
        lambda transaction: keys.wrapped_page(transaction, table, after, ROWS_PER_PAGE)  # noqa: B023 - runs at once
    ):
        yield rows
        after = rows[-1].name


def wrapped_records(context: Context) -> Iterator[RecordRow]:
    """Yield every record that a master key wraps. Records of commits are not among them: data keys seal those."""
    after = RecordKey(COMMIT, 2**63 - 1, 2**63 - 1)
    while rows := context.database.read(
        lambda transaction: records.page(transaction, after, ROWS_PER_PAGE)  # noqa: B023 - runs at once
    ):
        yield from rows
        after = rows[-1].key


def recorded_by(context: Context, row: RecordRow) -> str | None:
    """Return the id of the key that wraps a record; None if there is no record, or it has just been replaced."""
    if not row.parts:
        return None
    try:
        return wrapped_by(context.records.wrapped(RecordName(*row.key, row.recorded, 0)))
    except BlobNotFoundError:
        return None


def wrapped_by(wrapped: bytes) -> str:
    """Return the id of the key that wraps these bytes; DAMAGED if it cannot be read."""
    try:
        return wrapped_key_id(wrapped)
    except KeyUnavailableError:
        return DAMAGED

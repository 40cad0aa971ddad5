"""Records as time passes: what was left unwritten is written, and what says mostly what is gone is written anew."""

from __future__ import annotations

from cryostore.catalog import objects, records
from cryostore.catalog.database import Transaction
from cryostore.catalog.lineages import Segment
from cryostore.catalog.records import COMMIT, RecordKey, RecordRow
from cryostore.service import Context
from cryostore.service.records import record, record_due

ROWS_PER_PAGE = 200
ENTRIES_VOID_MIN = 64
"""So many entries of a record may be void without it being written anew."""


def write_due(context: Context) -> None:
    """Bring all records up to date."""
    while not record_due(context):
        pass


def shrink(context: Context, after: RecordKey) -> RecordKey | None:
    """Look at some records behind `after`, and write those anew that say mostly what is gone.

    Answers how far it has come; None at the end. May be broken off and repeated.
    """
    rows = context.database.read(lambda transaction: records.page(transaction, after, ROWS_PER_PAGE))
    for row in rows:
        if context.database.read(lambda transaction: _is_mostly_void(transaction, row)):  # noqa: B023 - runs at once
            context.database.write(lambda transaction: records.touch_known(transaction, row.key))  # noqa: B023 - as above
            record(context, row.key)
    return rows[-1].key if len(rows) == ROWS_PER_PAGE else None


def _is_mostly_void(transaction: Transaction, row: RecordRow) -> bool:
    if row.noun != COMMIT or row.entries < ENTRIES_VOID_MIN:
        return False
    return objects.count_written(transaction, Segment(row.number, row.generation)) * 2 < row.entries

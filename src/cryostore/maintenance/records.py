"""Records as time passes: what was left unwritten is written, and what says mostly what is gone is written anew."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cryostore.catalog import objects, records
from cryostore.catalog.database import Transaction
from cryostore.catalog.lineages import Segment
from cryostore.catalog.records import COMMIT, RecordKey, RecordRow
from cryostore.maintenance.collection import Progress, Run
from cryostore.service import Context
from cryostore.service.records import record, record_due

ROWS_PER_PAGE = 200
ENTRIES_VOID_MIN = 64
"""So many entries of a record may be void without it being written anew."""


def write_due(context: Context) -> None:
    """Bring all records up to date."""
    while not record_due(context):
        pass


def shrink(run: Run) -> Iterator[Progress]:
    """Write those records anew that say mostly what is gone."""
    if run.dry_run:
        return
    context, after, done = run.context, RecordKey(""), 0
    while rows := run.read(partial(records.page, after=after, limit=ROWS_PER_PAGE)):
        for row in rows:
            if run.read(partial(_is_mostly_void, row=row)):
                run.write(partial(records.touch_known, key=row.key))
                record(context, row.key)
        after, done = rows[-1].key, done + len(rows)
        yield Progress("records", done)


def _is_mostly_void(transaction: Transaction, row: RecordRow) -> bool:
    if row.noun != COMMIT or row.entries < ENTRIES_VOID_MIN:
        return False
    return objects.count_written(transaction, Segment(row.number, row.generation)) * 2 < row.entries

"""Records as time passes: what was left unwritten is written, and what no point needs goes."""

from __future__ import annotations

from collections.abc import Iterator

from cryostore.catalog.rows import records
from cryostore.maintenance.gc.run import Run
from cryostore.maintenance.progress import Progress
from cryostore.service import Context
from cryostore.service.records.recording import write_due_records


def write_due(context: Context) -> None:
    """Bring all records up to date."""
    while not write_due_records(context):
        pass


def drop_unseen(run: Run) -> Iterator[Progress]:
    """Remove the records of commits that nobody sees any more, where a deletion did not come to do it."""
    if not run.dry_run and run.write(records.touch_unseen):
        yield Progress("records", 0)
        write_due(run.context)

"""Ended backup jobs: ending one without a recovery point, rolling back what it wrote, deleting its uploads."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, lineages, objects, recovery_points, uploads
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.service.context import Context
from cryostore.service.lineages.pruning import (
    BATCH_ROWS,
    remove_unneeded_lineages,
    retire_lineage_unless_needed,
    run_in_batches,
)

ROLL_BACK_BATCHES_MAX = 20
"""Transactions that a request that ends a job spends at most on rolling it back; maintenance does the rest."""


def end_job(transaction: Transaction, job: JobRow, state: str, message: str, category: str, *, now_ms: int) -> None:
    """End a job without a recovery point. `roll_back_job` removes what the job wrote, afterwards."""
    jobs.end(transaction, job.job_id, state, now_ms=now_ms, status_message=message, message_category=category)
    recovery_points.delete(transaction, job.point_id)
    if job.segment is not None:
        lineages.set_dirty(transaction, job.segment)


def roll_back_job(context: Context, segment: Segment, *, batches_max: int) -> bool:
    """Remove what a job wrote that ended without a commit; a job that was ABORTING is ABORTED then.

    Returns whether nothing is left to remove; stops early after `batches_max` transactions. May be repeated, and
    several processes may do it at once.
    """
    done = run_in_batches(
        context, lambda transaction: _roll_back_batch(transaction, segment, context.clock()), batches_max
    )
    remove_unneeded_lineages(context, batches_max=batches_max)
    return done


def _roll_back_batch(transaction: Transaction, segment: Segment, now_ms: int) -> bool:
    lineage = lineages.find(transaction, segment.lineage_id)
    if lineage is None or lineage.dirty_generation != segment.generation:
        return True
    if not objects.truncate(transaction, segment.lineage_id, lineage.tip_generation, BATCH_ROWS):
        return False
    lineages.set_clean(transaction, segment.lineage_id)
    for job_id in jobs.aborting_in(transaction, segment.lineage_id):
        job = jobs.find(transaction, job_id)
        if job is not None and job.segment == segment:
            jobs.end(transaction, job_id, "ABORTED", now_ms=now_ms, message_category="Aborted")
            recovery_points.delete(transaction, job.point_id)
    retire_lineage_unless_needed(transaction, segment.lineage_id)
    return True


def delete_uploads(context: Context, job_id: str, *, batches_max: int = 4) -> None:
    """Delete the uploads of an ended job. Maintenance deletes what is left after `batches_max` transactions."""
    for _ in range(batches_max):
        if context.database.write(lambda transaction: uploads.delete_of_job(transaction, job_id, BATCH_ROWS)):
            return

"""Pruning: removal of the rows that no recovery point and no job sees any more.

A deleted recovery point takes its rows with it, and a lineage that nobody needs is removed. The rules of who sees which
row are in `catalog.rows.lineages`; the order of rows and records in `service.records.recording`.
"""

from __future__ import annotations

from collections.abc import Callable

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import lineages, objects, records, recovery_points
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.records import RecordKey, of_commit
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.service.context import Context
from cryostore.service.records.recording import remove_records_above, rewrite_record, update_record

BATCH_ROWS = 500
"""Rows that one transaction removes at most, so that no other writer waits long."""


class _RecordsAboveError(Exception):
    """The rows to remove are in records of commits above this segment: those records must be removed first."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.segment = segment


class _RecordsBuildOnError(Exception):
    """The rows to remove are in these records, or these build on them: they must be written again first."""

    def __init__(self, keys: list[RecordKey]) -> None:
        super().__init__(keys)
        self.keys = keys


def run_in_batches(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """Run a step, each time in a transaction of its own, until it returns that all is done.

    Returns whether it did so within `batches_max` transactions.
    """
    return any(context.database.write(step) for _ in range(batches_max))


def delete_point(context: Context, point: PointRow, *, batches_max: int) -> bool:
    """Remove the rows that only a point in state DELETING sees, then the point itself.

    The record of the point no longer names it when this returns. Returns whether all is done; stops early after
    `batches_max` transactions. May be repeated, and several processes may do it at once.
    """
    if context.database.read(collections.unknown_commits):
        return False
    if point.segment is not None:
        update_record(context, of_commit(point.segment))
    done = _run_with_records(
        context, lambda transaction: _remove_rows_of_point(transaction, point.point_id), batches_max
    )
    if done:
        context.database.write(lambda transaction: _delete_row_of_point(transaction, point.point_id))
    remove_unneeded_lineages(context, batches_max=batches_max)
    return done


def remove_unneeded_lineages(context: Context, *, batches_max: int) -> bool:
    """Remove retired lineages, and the rows of their parents that only they saw. Returns whether none is left.

    Stops early after `batches_max` transactions. May be repeated, and several processes may do it at once.
    """
    if context.database.read(lineages.first_retired) is None:
        return True
    if context.database.read(collections.unknown_commits):
        return False
    return _run_with_records(context, _remove_lineage_batch, batches_max)


def retire_lineage_unless_needed(transaction: Transaction, lineage_id: int) -> None:
    """Mark a lineage for removal if no point, job or other lineage needs it."""
    if not lineages.is_needed(transaction, lineage_id):
        lineages.retire(transaction, lineage_id)


def _run_with_records(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """As `run_in_batches`, for a step that may require records to be removed, or written again, before it."""
    for _ in range(batches_max):
        try:
            if context.database.write(step):
                return True
        except _RecordsAboveError as error:
            remove_records_above(context, error.segment)
        except _RecordsBuildOnError as error:
            for key in error.keys:
                rewrite_record(context, key)
    return False


def _remove_rows_of_point(transaction: Transaction, point_id: str) -> bool:
    """Remove a batch of the rows that only a point in state DELETING sees; returns whether none is left."""
    point = recovery_points.find(transaction, point_id)
    if point is None or point.segment is None:
        return True
    assert point.status == "DELETING"
    return _release_segment(transaction, point.segment)


def _delete_row_of_point(transaction: Transaction, point_id: str) -> None:
    """Delete the row of a point in state DELETING."""
    point = recovery_points.find(transaction, point_id)
    if point is None:
        return
    recovery_points.delete(transaction, point_id)
    if point.segment is not None:
        retire_lineage_unless_needed(transaction, point.segment.lineage_id)


def _release_segment(transaction: Transaction, segment: Segment) -> bool:
    """Remove a batch of the rows that only `segment` sees, unless another point or job sees the segment.

    Returns whether none is left. Raises _RecordsAboveError, _RecordsBuildOnError.
    """
    below, above = lineages.neighbours(transaction, segment)
    if above is not None:
        if keys := records.between(transaction, segment.lineage_id, below, above):
            raise _RecordsBuildOnError(keys)
        return objects.forget(transaction, segment.lineage_id, below, above, BATCH_ROWS)
    _require_no_records_above(transaction, segment._replace(generation=below))
    if not objects.truncate(transaction, segment.lineage_id, below, BATCH_ROWS):
        return False
    lineages.set_tip(transaction, segment._replace(generation=below))
    return True


def _require_no_records_above(transaction: Transaction, segment: Segment) -> None:
    """Raise _RecordsAboveError if a generation of the lineage above the segment has a record."""
    if records.above(transaction, segment, 1):
        raise _RecordsAboveError(segment)


def _remove_lineage_batch(transaction: Transaction) -> bool:
    lineage = lineages.first_retired(transaction)
    if lineage is None:
        return True
    if lineage.parent is None or _release_segment(transaction, lineage.parent):
        _require_no_records_above(transaction, Segment(lineage.lineage_id, 0))
        lineages.delete(transaction, lineage.lineage_id)
        if lineage.parent is not None:
            retire_lineage_unless_needed(transaction, lineage.parent.lineage_id)
    return False

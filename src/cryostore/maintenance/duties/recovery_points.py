"""Recovery points as time passes: what only deleted ones could see goes."""

from __future__ import annotations

from cryostore.catalog.rows import recovery_points
from cryostore.service import Context
from cryostore.service.lineages.pruning import delete_point

POINTS_PER_ROUND = 20
BATCHES_PER_POINT = 200


def forget_deleted(context: Context) -> None:
    """Finish deletions that were begun."""
    for point in context.database.read(lambda transaction: recovery_points.deleting(transaction, POINTS_PER_ROUND)):
        delete_point(context, point, batches_max=BATCHES_PER_POINT)

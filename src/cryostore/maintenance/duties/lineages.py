"""Lineages as time passes: what ended jobs wrote is taken back, and what nobody needs any more goes."""

from __future__ import annotations

from cryostore.catalog.rows import lineages
from cryostore.service import Context
from cryostore.service.lineages.ended_jobs import roll_back_job
from cryostore.service.lineages.pruning import remove_unneeded_lineages

LINEAGES_PER_ROUND = 100
BATCHES_PER_LINEAGE = 200


def clean_dirty(context: Context) -> None:
    """Take back what jobs wrote that ended without a commit."""
    for segment in context.database.read(lambda transaction: lineages.dirty(transaction, LINEAGES_PER_ROUND)):
        roll_back_job(context, segment, batches_max=BATCHES_PER_LINEAGE)


def settle_retired(context: Context) -> None:
    """Remove lineages that nobody needs."""
    remove_unneeded_lineages(context, batches_max=BATCHES_PER_LINEAGE)

"""Background tasks that remove rows nobody needs: of failed jobs, deleted points, deleted vaults and old tokens.

Each task works in small batches and stops after a bounded number of them; the next round continues. The bytes of chunks
are not removed here but by garbage collection.
"""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks, idempotency, lineages, recovery_points, vaults
from cryostore.service import Context
from cryostore.service.lineages.ended_jobs import roll_back_job
from cryostore.service.lineages.pruning import delete_point, remove_unneeded_lineages, run_in_batches

BATCHES_MAX = 200
"""The transactions that a task spends on one lineage, recovery point or vault in a round."""
LINEAGES_PER_ROUND = 100
POINTS_PER_ROUND = 20
CHUNKS_PER_BATCH = 5000
TOKENS_PER_ROUND = 1000


def roll_back_failed_jobs(context: Context) -> None:
    """Delete the rows that backup jobs wrote to their lineages before they ended without a commit."""
    for segment in context.database.read(lambda transaction: lineages.dirty(transaction, LINEAGES_PER_ROUND)):
        roll_back_job(context, segment, batches_max=BATCHES_MAX)


def finish_point_deletions(context: Context) -> None:
    """Finish the deletions of recovery points that were begun: remove the rows that only these points could see."""
    for point in context.database.read(lambda transaction: recovery_points.deleting(transaction, POINTS_PER_ROUND)):
        delete_point(context, point, batches_max=BATCHES_MAX)


def delete_unused_lineages(context: Context) -> None:
    """Delete lineages that no recovery point, job or child lineage uses."""
    remove_unneeded_lineages(context, batches_max=BATCHES_MAX)


def delete_chunks_of_deleted_vaults(context: Context) -> None:
    """Delete the chunk rows of deleted vaults. Vault ids are never reused."""

    def gone(transaction: Transaction) -> int | None:
        ids = chunks.vault_ids(transaction)
        return next((vault_id for vault_id in ids if not vaults.exists(transaction, vault_id)), None)

    def work(transaction: Transaction) -> bool:
        if (vault_id := gone(transaction)) is not None:
            chunks.delete_of_vault(transaction, vault_id, CHUNKS_PER_BATCH)
        return vault_id is None

    if context.database.read(gone) is not None:
        run_in_batches(context, work, BATCHES_MAX)


def forget_expired_tokens(context: Context) -> None:
    """Delete idempotency tokens that are older than the time for which they are honoured."""
    before_ms = context.clock() - context.settings.idempotency_ms
    context.database.write(lambda transaction: idempotency.delete_before(transaction, before_ms, TOKENS_PER_ROUND))

"""Vaults as time passes: what deleted ones leave in the catalog goes."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks, vaults
from cryostore.service import Context
from cryostore.service.lineages.pruning import run_in_batches

ROWS_PER_BATCH = 5000
BATCHES_PER_ROUND = 200


def delete_chunks_of_deleted(context: Context) -> None:
    """Remove the chunk rows of vaults that are gone. Vault ids are never used twice."""

    def gone(transaction: Transaction) -> int | None:
        ids = chunks.vault_ids(transaction)
        return next((vault_id for vault_id in ids if not vaults.exists(transaction, vault_id)), None)

    def work(transaction: Transaction) -> bool:
        if (vault_id := gone(transaction)) is not None:
            chunks.delete_of_vault(transaction, vault_id, ROWS_PER_BATCH)
        return vault_id is None

    if context.database.read(gone) is not None:
        run_in_batches(context, work, BATCHES_PER_ROUND)

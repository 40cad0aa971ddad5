"""Invariants of garbage collection, checked on the rows and packs of a store in memory."""

from __future__ import annotations

from cryostore.catalog.rows import chunk_lists, chunks
from cryostore.chunks.store import Location


def references(database):
    """Return all (vault, digest) that any row of the catalog refers to, visible or not."""

    def work(transaction):
        vaults = dict(transaction.rows("SELECT lineage_id, vault_id FROM lineage"))
        found = set(
            transaction.rows(
                "SELECT vault_id, digest FROM upload_chunk"
                " JOIN upload USING (upload_number) JOIN backup_job USING (job_id)"
            )
        )
        lists = transaction.rows(
            "SELECT lineage_id, chunk_list.chunks FROM object JOIN chunk_list USING (chunk_list_id)"
            " UNION ALL SELECT lineage_id, chunks FROM object WHERE chunks IS NOT NULL"
        )
        for lineage_id, packed in lists:
            found.update((vaults[lineage_id], entry.digest) for entry in chunk_lists.unpack(packed))
        metadata = transaction.rows("SELECT lineage_id, metadata_digest FROM object WHERE metadata_digest IS NOT NULL")
        found.update((vaults[lineage_id], digest) for lineage_id, digest in metadata)
        return found

    return database.read(work)


def given_up(database):
    """Return all (vault, digest) that are condemned."""
    query = "SELECT vault_id, digest FROM chunk WHERE condemned_ms IS NOT NULL"
    return set(database.read(lambda transaction: transaction.rows(query)))


def held(database):
    """Return all (vault, digest) that have a row."""
    return set(database.read(lambda transaction: transaction.rows("SELECT vault_id, digest FROM chunk")))


def unreadable(context, database):
    """Return the rows of chunks whose bytes are missing or changed."""
    wrong = []
    for vault_id, digest in sorted(held(database)):
        row = database.read(lambda transaction, v=vault_id, d=digest: chunks.find(transaction, v, d))
        try:
            key = context.keys.opening(row.key_number)
            place = Location(row.pack_name, row.pack_offset, row.sealed_length)
            context.store.get(place, key, digest, row.length)
        except Exception as error:  # noqa: BLE001 - any error is reported
            wrong.append((vault_id, digest.hex(), repr(error)))
    return wrong


def retired_but_used(database):
    """Return the packs that must not have rows and have some."""
    query = "SELECT name FROM pack WHERE retired_ms IS NOT NULL AND pack_number IN (SELECT pack_number FROM chunk)"
    return database.read(lambda transaction: transaction.rows(query))


def problems(context, database):
    """Return all violated invariants: an empty list if there are none."""
    needed = references(database)
    return [
        *(f"a chunk is referred to and not there: {chunk}" for chunk in needed - held(database)),
        *(f"a chunk is referred to and given up: {chunk}" for chunk in needed & given_up(database)),
        *(f"a row without its bytes: {chunk}" for chunk in unreadable(context, database)),
        *(f"a retired pack that is used: {pack}" for pack in retired_but_used(database)),
    ]

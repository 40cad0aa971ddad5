"""Integrity of a complete store: no row refers to a missing row or to missing bytes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cryostore.catalog.rows import chunk_lists
from cryostore.chunks.envelope import EnvelopeHeader
from cryostore.chunks.packs.format import pack_key

REFERENCES = {
    "an upload of a job that does not exist": (
        "SELECT upload_id FROM upload WHERE job_id NOT IN (SELECT job_id FROM backup_job)"
    ),
    "a chunk of an upload that does not exist": (
        "SELECT upload_number FROM upload_chunk WHERE upload_number NOT IN (SELECT upload_number FROM upload)"
    ),
    "an upload that counts its chunks wrongly": (
        "SELECT upload_id FROM upload WHERE completion_digest IS NULL AND chunk_count <>"
        " (SELECT count(*) FROM upload_chunk WHERE upload_chunk.upload_number = upload.upload_number)"
    ),
    "a chunk list of nobody": (
        "SELECT chunk_list_id FROM chunk_list WHERE chunk_list_id NOT IN"
        " (SELECT chunk_list_id FROM object WHERE chunk_list_id IS NOT NULL UNION SELECT upload_number FROM upload)"
    ),
    "an object without its chunk list": (
        "SELECT name FROM object WHERE chunk_list_id IS NOT NULL"
        " AND chunk_list_id NOT IN (SELECT chunk_list_id FROM chunk_list)"
    ),
    "an object in a lineage that does not exist": (
        "SELECT name FROM object WHERE lineage_id NOT IN (SELECT lineage_id FROM lineage)"
    ),
    "a point being created without its job, or with one that ended": (
        "SELECT point_id FROM recovery_point WHERE status = 'CREATING' AND job_id NOT IN"
        " (SELECT job_id FROM backup_job WHERE completed_ms IS NULL)"
    ),
    "a finished job without its point": (
        "SELECT job_id FROM backup_job WHERE state NOT IN ('COMPLETED', 'ABORTED', 'FAILED', 'EXPIRED')"
        " AND point_id NOT IN (SELECT point_id FROM recovery_point)"
    ),
    "two jobs of one resource running": (
        "SELECT vault_id, resource_arn FROM backup_job WHERE state IN ('RUNNING', 'ABORTING')"
        " GROUP BY vault_id, resource_arn HAVING count(*) > 1"
    ),
}


def problems(data_dir):
    """Return the problems of a store that no process writes to; an empty list if there are none.

    In the place of a directory there may be what finds its own problems.
    """
    if not isinstance(data_dir, Path):
        return data_dir.problems()
    found = []
    with closing(sqlite3.connect(f"file:{data_dir / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        for what, query in REFERENCES.items():
            found += [f"{what}: {row}" for row in connection.execute(query)]
        found += _missing_bytes(connection, data_dir)
        found += _missing_chunks(connection)
    return found


def _missing_bytes(connection, data_dir):
    """Return the rows of chunks that do not point to an envelope of their length."""
    rows = connection.execute(
        "SELECT pack.name, pack_offset, sealed_length, length FROM chunk JOIN pack USING (pack_number)"
    ).fetchall()
    packs = {}
    for name, offset, sealed_length, length in rows:
        if name not in packs:
            path = data_dir / pack_key(name)
            packs[name] = path.read_bytes() if path.exists() else b""
        data = packs[name]
        if len(data) < offset + sealed_length:
            yield f"a chunk beyond the end of pack {name}: {offset} + {sealed_length} of {len(data)}"
            continue
        header = EnvelopeHeader.decode(data, offset)
        if (header.envelope_bytes, header.payload_bytes) != (sealed_length, length):
            yield f"a chunk that is another in pack {name} at {offset}"


def _missing_chunks(connection):
    """Return the chunks that objects, uploads and metadata refer to, but the vault does not contain."""
    held = set(connection.execute("SELECT vault_id, digest FROM chunk"))
    vaults = dict(connection.execute("SELECT lineage_id, vault_id FROM lineage"))
    needed = set(
        connection.execute(
            "SELECT vault_id, digest FROM upload_chunk JOIN upload USING (upload_number) JOIN backup_job USING (job_id)"
        )
    )
    objects = connection.execute("SELECT lineage_id, metadata_digest, chunks, chunk_list_id FROM object").fetchall()
    for lineage_id, metadata_digest, packed, chunk_list_id in objects:
        vault_id = vaults.get(lineage_id)
        if metadata_digest is not None:
            needed.add((vault_id, metadata_digest))
        parts = [packed] if packed is not None else []
        if chunk_list_id is not None:
            query = "SELECT chunks FROM chunk_list WHERE chunk_list_id = ? ORDER BY part"
            parts = [row[0] for row in connection.execute(query, (chunk_list_id,))]
        needed.update((vault_id, entry.digest) for part in parts for entry in chunk_lists.unpack(part))
    for vault_id, digest in sorted(needed - held):
        yield f"vault {vault_id} lacks chunk {digest.hex()}"

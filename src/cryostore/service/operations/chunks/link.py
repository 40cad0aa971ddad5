"""LinkChunks: attach chunks that the vault holds already, without sending their bytes (control plane 3.2).

The rule that says who may link a chunk is `may_link`.
"""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.core.digest import Checksum
from cryostore.model.chunks import LinkChunks, LinkChunksOutput, LinkedChunk
from cryostore.service.access import allows
from cryostore.service.context import Caller, Context
from cryostore.service.operations.jobs.lookup import require_still_running, running_job
from cryostore.service.operations.steps import run_steps
from cryostore.service.operations.uploads import attach_chunk, check_upload_open, find_upload
from cryostore.service.operations.vaults import vault_name


def may_link(caller: Caller, vault: str) -> bool:
    """Whether a caller may link chunks of a vault: only one that may read them.

    The answer of LinkChunks reveals which bytes the vault holds. For any other caller, every chunk is missing.
    """
    return allows(caller, "backup-storage:GetChunk", vault)


def link_chunks(context: Context, operation: LinkChunks, caller: Caller) -> LinkChunksOutput:
    """Attach the chunks that the vault holds, and return the indexes of the others."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    upload = context.database.read(lambda transaction: find_upload(transaction, job, operation.upload_id))
    check_upload_open(upload)
    entries = [_entry(chunk) for chunk in operation.chunks]

    def work(transaction: Transaction) -> list[int]:
        require_still_running(context, transaction, job)
        if not may_link(caller, vault_name(transaction, job.vault_id)):
            return [entry.chunk_index for entry in entries]
        lengths = chunks.known_lengths(transaction, job.vault_id, [entry.digest for entry in entries])
        missing: list[int] = []
        for entry in entries:
            if lengths.get(entry.digest) == entry.length and chunks.mark_used(transaction, job.vault_id, entry.digest):
                run_steps(transaction, attach_chunk(context, upload, entry))
            else:
                missing.append(entry.chunk_index)
        return missing

    return LinkChunksOutput(missing=context.database.write(work))


def _entry(chunk: LinkedChunk) -> ChunkEntry:
    checksum = Checksum.parse(chunk.checksum)
    return ChunkEntry(chunk.index, chunk.length, checksum.digest, checksum.form)

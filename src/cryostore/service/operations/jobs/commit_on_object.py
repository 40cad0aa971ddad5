"""CommitOnObject: completing an object with an agreed name commits the job (control plane 3.5).

Clients that do not know the extension operations use it.
"""

from __future__ import annotations

import msgspec

from cryostore.catalog.rows.jobs import JobRow
from cryostore.core.digest import Payload
from cryostore.model.errors import IllegalArgumentException
from cryostore.model.jobs import CommitBackupJob
from cryostore.service.operations.jobs.commit import commit_digest


def commits_job(job: JobRow, name: str) -> bool:
    """Whether completing an object of this name commits the job."""
    return job.options != "{}" and msgspec.json.decode(job.options).get("CommitOnObject") == name


def commit_of(job: JobRow, blob: Payload | None) -> CommitBackupJob:
    """The commit that completing the object with this metadata stands for."""
    metadata: dict[str, str] | None = None
    if blob is not None and len(blob):
        try:
            metadata = msgspec.json.decode(blob.data, type=dict[str, str])
        except msgspec.DecodeError:
            raise IllegalArgumentException("MetadataBlob: must be a JSON object of texts, it commits the job") from None
    return CommitBackupJob(backup_job_id=job.job_id, restore_metadata=metadata)


def repeats_commit(job: JobRow, blob: Payload | None) -> bool:
    """Whether a request for an ended job repeats the one that committed it."""
    if job.state != "COMPLETED" or "CommitOnObject" not in msgspec.json.decode(job.options):
        return False
    return job.commit_digest == commit_digest(commit_of(job, blob))

"""A backup job of the agent: opened, given up or committed."""

from __future__ import annotations

from contextlib import suppress

from cryostore.core.errors import CryostoreError
from cryostore.model.jobs import (
    CommitBackupJob,
    CommitBackupJobOutput,
    GetIncrementalBaseBackup,
    GetIncrementalBaseBackupOutput,
    StartBackupJob,
)
from cryostore.model.operation import Call

ROLE_ARN = "arn:aws:iam::000000000000:role/cryo-agent"
MESSAGE_CHARACTERS_MAX = 2000


def resource_arn(name: str) -> str:
    """The ARN of a file tree that is backed up under this name."""
    return f"arn:aws:cryo:::fileset:{name}"


class BackupJob:
    """An open backup job. Whoever opened one ends it, with `commit` or `give_up`."""

    def __init__(self, call: Call, vault: str, resource: str, tags: dict[str, str], base: str = "latest") -> None:
        """Raises the store's errors."""
        self._call = call
        self._resource = resource
        started = call.call(
            StartBackupJob(
                backup_vault_name=vault,
                resource_arn=resource_arn(resource),
                iam_role_arn=ROLE_ARN,
                recovery_point_tags=tags or None,
                backup_options={"IncrementalBase": base},
            )
        )
        assert started.backup_job_id is not None
        self.job_id = started.backup_job_id

    def base(self) -> GetIncrementalBaseBackupOutput:
        """The base of the job; starts the job. Raises ThrottlingException while another job of the resource runs."""
        return self._call.call(GetIncrementalBaseBackup(backup_job_id=self.job_id))

    def commit(self, restore_metadata: dict[str, str], issue_count: int) -> CommitBackupJobOutput:
        """Make what was written a recovery point."""
        return self._call.call(
            CommitBackupJob(
                backup_job_id=self.job_id,
                resource_name=self._resource,
                issue_count=issue_count,
                restore_metadata=restore_metadata,
            )
        )

    def give_up(self, reason: str) -> None:
        """End the job without a recovery point, as far as the store can still be told."""
        message = "".join(character for character in reason if character.isprintable())[:MESSAGE_CHARACTERS_MAX]
        with suppress(CryostoreError):
            self._call.call(
                CommitBackupJob(
                    backup_job_id=self.job_id, outcome="FAILED", status_message=message, discard_open_uploads=True
                )
            )

"""A backup job of the agent: opened or taken over, given up or committed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from msgspec import structs

from cryostore.agent.archive.recovery_points import ROLE_ARN
from cryostore.agent.backup.damaged_base import check_secrecy, is_unreadable
from cryostore.agent.backup.unfinished import Unfinished
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.errors import SourceError
from cryostore.agent.header import FILESET
from cryostore.agent.upload.heartbeat import heartbeat_option_seconds
from cryostore.client import pages
from cryostore.core import interrupts
from cryostore.core.digest import Checksum
from cryostore.core.errors import CryostoreError
from cryostore.model.errors import (
    ModelError,
    ResourceNotFoundException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.jobs import (
    CommitBackupJob,
    CommitBackupJobOutput,
    GetIncrementalBaseBackup,
    GetIncrementalBaseBackupOutput,
    StartBackupJob,
    StopBackupJob,
)
from cryostore.model.objects import DeleteObject
from cryostore.model.operation import Call

MESSAGE_CHARACTERS_MAX = 2000
MAY_BE_MADE = "the recovery point may have been made all the same; `cryo points` shows whether"


@contextmanager
def committing() -> Iterator[None]:
    """Around a commit and what follows on it: a Ctrl-C here does not mean that there is no recovery point."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(MAY_BE_MADE)
        raise


class BackupJob:
    """An open backup job with its base. Whoever opened one ends it, with `commit` or `give_up`.

    `damaged` are the objects of the base that the store has lost bytes of, and `damaged_count` is their number, or that
    of a base that could not be used for that reason.
    """

    def __init__(self, call: Call, resource: str, base: GetIncrementalBaseBackupOutput, *, without: int = 0) -> None:
        self._call = call
        self._resource = resource
        self.job_id = base.backup_job_id
        self.base = base
        self.damaged = frozenset(base.damaged_objects or ())
        self.damaged_count = without or len(self.damaged)

    def commit(
        self, objects: dict[str, bytes], restore_metadata: dict[str, str], issue_count: int
    ) -> CommitBackupJobOutput:
        """Make what was written a recovery point.

        `objects` are the checksums of all objects it must have. Raises IllegalArgumentException if it has others.
        """
        whole = hashlib.sha256()
        for name in sorted(objects, key=str.encode):
            whole.update(name.encode() + b"\0" + objects[name])
        operation = CommitBackupJob(
            backup_job_id=self.job_id,
            object_count=len(objects),
            objects_checksum=whole.hexdigest(),
            objects_checksum_algorithm="SUMMARY",
            resource_name=self._resource,
            issue_count=issue_count,
            restore_metadata=restore_metadata,
            discard_open_uploads=True,
        )
        interrupts.check()  # the last moment at which it is sure that there will be none
        with committing():
            return self._call.call(operation)

    def give_up(self, error: BaseException) -> bool:
        """End the job without a recovery point, for this reason; tells whether the store could still be told."""
        reason = _reason(error)
        if isinstance(self._call, KeyedCall):
            reason = "failed"  # it may name a path
        message = "".join(character for character in reason if character.isprintable())[:MESSAGE_CHARACTERS_MAX]
        try:
            self._call.call(
                CommitBackupJob(
                    backup_job_id=self.job_id, outcome="FAILED", status_message=message, discard_open_uploads=True
                )
            )
        except CryostoreError:
            return False
        return True


def _reason(error: BaseException) -> str:
    if isinstance(error, CryostoreError):
        return error.message
    if isinstance(error, SourceError):
        return error.reason
    return "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__


def open_job(
    call: Call,
    vault: str,
    resource: str,
    tags: dict[str, str],
    unfinished: Unfinished | None = None,
    kind: str = FILESET,
    *,
    wait_seconds: float = 0.0,
) -> BackupJob:
    """The job of a killed run if it can be gone on with, else a new one. Without a base, if that cannot be read.

    `wait_seconds` is how long the run waits for a server that is away: its job stays its own for that time.

    Raises what the store raises, ServiceUnavailableException while another job of the resource is running, and
    KeyUnavailableError if a base that cannot be read was sealed and this run would not seal, or the other way round.
    """
    if unfinished is not None and (job_id := unfinished.job_id()):
        if (job := _taken_over(call, resource, job_id)) is not None:
            return job
        with suppress(ModelError):
            call.call(StopBackupJob(backup_job_id=job_id))
        unfinished.end()
    start = StartBackupJob(
        backup_vault_name=vault,
        resource_arn=resource_arn(resource, kind),
        iam_role_arn=ROLE_ARN,
        recovery_point_tags=tags or None,
        backup_options={"HeartbeatSeconds": str(heartbeat_option_seconds(wait_seconds))},
    )
    base = _begun(call, start, unfinished)
    if not is_unreadable(base):
        return BackupJob(call, resource, base)
    try:
        check_secrecy(call, base)
    finally:
        with suppress(ModelError):
            call.call(StopBackupJob(backup_job_id=base.backup_job_id))
    start = structs.replace(start, backup_options=(start.backup_options or {}) | {"IncrementalBase": "none"})
    return BackupJob(call, resource, _begun(call, start, unfinished), without=base.damaged_object_count or 0)


def resource_arn(name: str, kind: str = FILESET) -> str:
    """The ARN of a resource of this name: a file tree, a stream or a disk."""
    return f"arn:aws:cryo:::{kind}:{name}"


def _begun(call: Call, start: StartBackupJob, unfinished: Unfinished | None) -> GetIncrementalBaseBackupOutput:
    """Begin a job, note it, and learn its base."""
    job_id = call.call(start).backup_job_id or ""
    if unfinished is not None:
        unfinished.begin(job_id)
    try:
        return call.call(GetIncrementalBaseBackup(backup_job_id=job_id))
    except ThrottlingException as error:
        with suppress(CryostoreError):
            call.call(StopBackupJob(backup_job_id=job_id))
        raise ServiceUnavailableException(
            f"another backup of this resource is running: {error.message}",
            hint="wait for it; if its agent is dead, a later run takes its place: 3 minutes and its --wait (together 8"
            " minutes by default) after its last request",
        ) from error


def drop_objects(call: Call, job_id: str, names: Iterable[str]) -> None:
    """Take objects of the base out of a job. One that is gone already is one whose answer was lost the first time."""
    for name in names:
        with suppress(ResourceNotFoundException):
            call.call(DeleteObject(backup_job_id=job_id, object_name=name))


def _taken_over(call: Call, resource: str, job_id: str) -> BackupJob | None:
    """An unfinished job, if it is still open and nothing of its view differs from its base."""
    try:
        base = call.call(GetIncrementalBaseBackup(backup_job_id=job_id))
        view = summaries(call, job_id)
        old = summaries(call, base.storage_job_id) if base.storage_job_id else {}
    except ModelError:
        return None
    return BackupJob(call, resource, base) if view == old and not is_unreadable(base) else None


def summaries(call: Call, storage_job_id: str) -> dict[str, bytes]:
    """The checksum of each object that a storage job sees."""
    listed = pages.objects(call, storage_job_id)
    return {each.name: Checksum.parse(each.object_checksum).digest for each in listed}

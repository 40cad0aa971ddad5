"""Backup status of each resource: its newest good recovery point, and open or failed jobs since.

A trial job proves that backups can be made: it writes a few KiB to a store, reads them back, and stops, so that no
recovery point is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from cryostore.agent.archive.recovery_points import ROLE_ARN, RecoveryPoint, completion_seconds, list_points
from cryostore.agent.small_object import store_small
from cryostore.agent.verification.archive_check import is_damaged
from cryostore.client import pages
from cryostore.core.errors import CryostoreError
from cryostore.core.ids import NewId, random_id
from cryostore.core.time import DAY_MS, milliseconds, seconds
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import BackupJob, BackupJobState, ListBackupJobs, StartBackupJob, StopBackupJob
from cryostore.model.operation import Call

OPEN: tuple[BackupJobState, ...] = ("CREATED", "PENDING", "RUNNING", "ABORTING")
FAILED: tuple[BackupJobState, ...] = ("FAILED", "ABORTED", "EXPIRED")
GOOD = ("COMPLETED", "AVAILABLE")
AHEAD_MS_MAX = DAY_MS
"""Working clocks never differ by this much."""
FAILURES_MS = 7 * DAY_MS
"""Failed jobs older than this are ignored."""
RESOURCE_ARN = "arn:aws:cryo:::trial:{}"
OBJECT = "trial"
IDS = 100
"""The trial writes this many new ids, some KiB that no store has yet."""


@dataclass(slots=True)
class ResourceStatus:
    """The backup status of one resource in one vault. `running` and `failed` are its newest jobs of that kind.

    `failed` is set only if the job began after the newest good recovery point. `damaged` says whether the store knows
    damage of that point; None if the store does not answer.
    """

    vault: str
    resource_arn: str
    name: str
    points: int = 0
    last: RecoveryPoint | None = None
    running: BackupJob | None = None
    failed: BackupJob | None = None
    damaged: bool | None = None

    def age_ms(self, now_ms: int) -> int | None:
        """Return the age of the newest good recovery point since its run began; None without such a point."""
        if self.last is None:
            return None
        return max(now_ms - milliseconds(self.last.creation_date or 0.0), 0)

    def is_ahead(self, now_ms: int) -> bool:
        """Return whether the newest good run began so far in the future that a clock must have been wrong."""
        return self.last is not None and milliseconds(self.last.creation_date or 0.0) - now_ms > AHEAD_MS_MAX

    def is_older(self, now_ms: int, age_ms_max: int) -> bool:
        """Return whether the newest good point is older than this, has no reliable age, or is missing."""
        age = self.age_ms(now_ms)
        return age is None or age > age_ms_max or self.is_ahead(now_ms)


def resource_statuses(
    call: Call, now_ms: int, vault: str | None = None, resource: str | None = None
) -> list[ResourceStatus]:
    """Return all resources with recovery points, an open job, or a job that failed in the last week, by name.

    Recovery points that are not complete do not count. Raises what the store raises.
    """
    found: dict[tuple[str, str], ResourceStatus] = {}
    for point in list_points(call, vault, resource):
        if point.status in GOOD:
            _count_point(_status_of(found, point), point)
    for state in OPEN:
        for job in pages.items(call, ListBackupJobs(by_state=state, by_backup_vault_name=vault)):
            if _is_of(job, resource):
                each = _status_of(found, job)
                each.running = _newer(each.running, job)
    for job in _failed_jobs(call, now_ms, vault):
        if _is_of(job, resource):
            _note_failure(_status_of(found, job), job)
    for each in found.values():
        if each.last is not None:
            each.damaged = is_damaged(call, each.last)
    return sorted(found.values(), key=lambda each: (each.name, each.vault))


def _failed_jobs(call: Call, now_ms: int, vault: str | None) -> Iterator[BackupJob]:
    since = seconds(max(now_ms - FAILURES_MS, 0))
    for state in FAILED:
        request = ListBackupJobs(by_state=state, by_backup_vault_name=vault, by_created_after=since)
        yield from pages.items(call, request)


def _is_of(job: BackupJob, resource: str | None) -> bool:
    """Return whether a job belongs to the selected resource. Trial jobs, which always stop, do not count."""
    arn = job.resource_arn or ""
    return not arn.startswith(RESOURCE_ARN.format("")) and resource in (None, arn, _name(job))


def _status_of(found: dict[tuple[str, str], ResourceStatus], item: RecoveryPoint | BackupJob) -> ResourceStatus:
    key = (item.backup_vault_name or "", item.resource_arn or "")
    return found.setdefault(key, ResourceStatus(*key, name=_name(item)))


def _name(item: RecoveryPoint | BackupJob) -> str:
    """Return the resource's name. An open job does not know it yet, but its ARN ends with it."""
    return item.resource_name or (item.resource_arn or "").split(":", 6)[-1]


def _count_point(each: ResourceStatus, point: RecoveryPoint) -> None:
    each.points += 1
    if each.last is None or completion_seconds(point) > completion_seconds(each.last):
        each.last, each.name = point, _name(point)


def _note_failure(each: ResourceStatus, job: BackupJob) -> None:
    if each.last is None or (job.creation_date or 0.0) > (each.last.creation_date or 0.0):
        each.failed = _newer(each.failed, job)


def _newer(one: BackupJob | None, other: BackupJob) -> BackupJob:
    return other if one is None or (other.creation_date or 0.0) > (one.creation_date or 0.0) else one


def run_trial_job(call: Call, vault: str, new_id: NewId = random_id) -> None:
    """Write a few KiB into a vault, read them back, and stop the job. Garbage collection removes the bytes.

    Raises what the store raises, and CryostoreError if other bytes come back.
    """
    data = "".join(new_id() for _ in range(IDS)).encode()
    arn = RESOURCE_ARN.format(new_id())
    started = call.call(
        StartBackupJob(
            backup_vault_name=vault,
            resource_arn=arn,
            iam_role_arn=ROLE_ARN,
            backup_options={"IncrementalBase": "none"},
        )
    )
    job_id = started.backup_job_id or ""
    _run_and_finish(lambda: _write_and_read(call, job_id, data), lambda: call.call(StopBackupJob(backup_job_id=job_id)))


def _write_and_read(call: Call, job_id: str, data: bytes) -> None:
    store_small(call, job_id, OBJECT, data)
    found = b"".join(
        bytes(call.call(GetChunk(storage_job_id=job_id, chunk_token=chunk.chunk_token)).data.data)
        for each in pages.objects(call, job_id)
        for chunk in pages.chunks(call, job_id, each.object_token)
    )
    if found != data:
        raise CryostoreError("the store returned other bytes than were written", hint="do not rely on this store")


def _run_and_finish(work: Callable[[], object], end: Callable[[], object]) -> None:
    """Call `work`, and then `end` in any case. If both fail, the error of `work` is raised."""
    try:
        work()
    except BaseException:
        with suppress(CryostoreError):
            end()
        raise
    end()

"""Opening the archive of a recovery point, through a restore job that keeps the point alive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from typing import Literal

from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.recovery_points import ROLE_ARN, RecoveryPoint, completion_seconds, list_points
from cryostore.agent.archive.sound_copies import SoundCopies
from cryostore.agent.encryption.key_objects import read_archive_keys, require_fitting_key
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.encryption.locked_key import key_for
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.client import pages
from cryostore.core.errors import CryostoreError, KeyUnavailableError
from cryostore.model.operation import Call
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob

NEWER_MAX = 3
"""At most this many newer recovery points are searched for sound copies of damaged files."""


def _archive(call: Call, job_id: str, point: RecoveryPoint) -> Archive:
    """Open the archive that a restore job reads. Its key may be wrapped only in the newest archive of the resource."""
    try:
        archive = Archive(call, job_id)
    except KeyUnavailableError:
        if not isinstance(call, KeyedCall) or not _learn_keys(call, point):
            raise
        archive = Archive(call, job_id)
    if archive.sealing and not (point.resource_arn or "").endswith(f":{archive.sealing.head.resource}"):
        archive.close()
        raise ArchiveDamagedError("the store returned the archive of another resource")
    return archive


def _learn_keys(call: KeyedCall, point: RecoveryPoint) -> bool:
    """Read the keys of the resource's newest recovery point; return whether that is another point than this one."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newest = max(points, key=completion_seconds, default=point)
    if newest.recovery_point_arn == point.recovery_point_arn:
        return False
    with _restore_job(call, newest, "keys") as job_id:
        objects = {each.name: each for each in pages.objects(call, job_id)}
        if (key := require_fitting_key(objects, key_for(call, job_id, objects))) is not None:
            call.learned = read_archive_keys(call, job_id, objects, key, call.learned)
    return True


@contextmanager
def open_archive(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[Archive]:
    """Open the archive of a recovery point for the duration of the context.

    A restore job keeps the recovery point alive meanwhile. Files with damaged chunks are read from newer recovery
    points if those have sound copies.
    """
    with _open_without_copies(call, point, purpose) as archive:
        archive.sound_copies = SoundCopies(archive, partial(_newer, call, point))
        yield archive


@contextmanager
def _open_without_copies(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[Archive]:
    with _restore_job(call, point, purpose) as job_id, closing(_archive(call, job_id, point)) as archive:
        yield archive


def _newer(call: Call, point: RecoveryPoint) -> Iterator[AbstractContextManager[Archive]]:
    """Return up to NEWER_MAX archives of newer recovery points of the same resource, not opened yet, newest first."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newer = [each for each in points if completion_seconds(each) > completion_seconds(point)]
    for each in sorted(newer, key=completion_seconds, reverse=True)[:NEWER_MAX]:
        yield _open_without_copies(call, each, "copies")


@contextmanager
def _restore_job(call: Call, point: RecoveryPoint, purpose: str) -> Iterator[str]:
    """Keep a restore job open for the duration of the context; yield its id."""
    started = call.call(
        StartRestoreJob(
            recovery_point_arn=point.recovery_point_arn or "", metadata={"purpose": purpose}, iam_role_arn=ROLE_ARN
        )
    )
    job_id = started.restore_job_id or ""
    status: Literal["COMPLETED", "FAILED"] = "FAILED"
    try:
        yield job_id
        status = "COMPLETED"
    finally:
        with suppress(CryostoreError):
            call.call(CompleteRestoreJob(restore_job_id=job_id, status=status))

"""Recovery points as people name them: by ARN, id, the beginning of an id, or `latest`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from typing import Literal

from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.sound_copies import SoundCopies
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.keys.archive_keys import checked, read_keys
from cryostore.agent.keys.keyed_call import KeyedCall
from cryostore.agent.keys.locked_key import key_for
from cryostore.agent.resources import ROLE_ARN
from cryostore.client import pages
from cryostore.core.errors import ConfigurationError, CryostoreError, KeyUnavailableError
from cryostore.model.errors import InvalidParameterValueException, ResourceNotFoundException
from cryostore.model.operation import Call
from cryostore.model.recovery_points import (
    DescribeRecoveryPoint,
    ListRecoveryPointsByBackupVault,
    RecoveryPointByBackupVault,
)
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob
from cryostore.model.vaults import DescribeBackupVault, ListBackupVaults

ID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
READABLE = ("COMPLETED", "PARTIAL", "EXPIRED", "AVAILABLE")
Point = RecoveryPointByBackupVault


def point_id(point: Point) -> str:
    """The id of a recovery point: the last part of its ARN."""
    return (point.recovery_point_arn or "").rpartition(":")[2]


NEWER_MAX = 3
"""So many newer recovery points are asked for sound copies of damaged files."""


def completed(point: Point) -> float:
    """When a recovery point was completed. The store lets that only grow, whatever becomes of clocks."""
    return point.completion_date or point.creation_date or 0.0


def list_points(call: Call, vault: str | None = None, resource: str | None = None) -> Iterator[Point]:
    """The recovery points that can be read, of one vault or of all, newest first in each."""
    for name in [vault] if vault else _vaults(call):
        for point in pages.items(call, ListRecoveryPointsByBackupVault(backup_vault_name=name)):
            if point.status in READABLE and _is_of(point, resource):
                yield point


def _is_of(point: Point, resource: str | None) -> bool:
    return resource in (None, point.resource_name, point.resource_arn)


def _vaults(call: Call) -> list[str]:
    found = pages.items(call, ListBackupVaults())
    return [vault.backup_vault_name for vault in found if vault.backup_vault_name]


def find_point(call: Call, text: str, vault: str | None = None, resource: str | None = None) -> Point:
    """The one recovery point that `text` names. Raises ConfigurationError if there is none, or more than one.

    A full ARN or id is looked up; anything else is looked for among all recovery points.
    """
    unknown = ConfigurationError(f"{text!a} is no recovery point", hint="`cryo points` lists them")
    if text.startswith("arn:") or ID.fullmatch(text):
        point = _described(call, text, vault)
        if point is not None and point.status in READABLE and _is_of(point, resource):
            return point
        raise unknown
    points = list(list_points(call, vault, resource))
    if text == "latest":
        if not points and resource is not None:
            hint = "`cryo points` lists them, each with its resource"
            raise ConfigurationError(f"the resource {resource!a} has no recovery point", hint=hint)
        if not points:
            raise ConfigurationError("there is no recovery point yet", hint="`cryo backup PATH` makes one")
        return max(points, key=completed)
    wanted = text.upper()
    found = [point for point in points if wanted and point_id(point).startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise unknown
    raise ConfigurationError(f"{text!a} is the beginning of several recovery points", hint="`cryo points` lists them")


def _described(call: Call, text: str, vault: str | None) -> Point | None:
    """The recovery point with this ARN or id, whichever vault it is in; None if the store does not find it."""
    for each in [vault] if vault else _vaults(call):
        arn = text
        if not text.startswith("arn:"):
            vault_arn = call.call(DescribeBackupVault(backup_vault_name=each)).backup_vault_arn or ""
            arn = f"{vault_arn.partition(':backup-vault:')[0]}:recovery-point:{text.upper()}"
        try:
            found = call.call(DescribeRecoveryPoint(backup_vault_name=each, recovery_point_arn=arn))
        except (ResourceNotFoundException, InvalidParameterValueException):
            continue
        return Point(**{name: getattr(found, name, None) for name in Point.__struct_fields__})
    return None


def split_point(text: str) -> tuple[str, str]:
    """POINT and PATH of `POINT[:PATH]`. An ARN has colons itself: its path begins behind the seventh."""
    colons = 7 if text.startswith("arn:") else 1
    parts = text.split(":", colons)
    return ":".join(parts[:colons]), parts[colons] if len(parts) > colons else ""


def _archive(call: Call, job_id: str, point: Point) -> Archive:
    """The archive that a restore job reads; what opens it may be wrapped in the newest one of the resource alone."""
    try:
        archive = Archive(call, job_id)
    except KeyUnavailableError:
        if not isinstance(call, KeyedCall) or not _learn_keys(call, point):
            raise
        archive = Archive(call, job_id)
    if archive.sealing and not (point.resource_arn or "").endswith(f":{archive.sealing.head.resource}"):
        archive.close()
        raise ArchiveDamagedError("the store gave the archive of another resource")
    return archive


def _learn_keys(call: KeyedCall, point: Point) -> bool:
    """Learn the keys of the newest recovery point of the same resource; tells whether there is a newer one."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newest = max(points, key=completed, default=point)
    if newest.recovery_point_arn == point.recovery_point_arn:
        return False
    with _restore_job(call, newest, "keys") as job_id:
        objects = {each.name: each for each in pages.objects(call, job_id)}
        if (key := checked(objects, key_for(call, job_id, objects))) is not None:
            call.learned = read_keys(call, job_id, objects, key, call.learned)
    return True


@contextmanager
def opened(call: Call, point: Point, purpose: str) -> Iterator[Archive]:
    """The archive of a recovery point, which stays while it is read. Damaged files may come from newer points."""
    with _opened(call, point, purpose) as archive:
        archive.copies = SoundCopies(archive, partial(_newer, call, point))
        yield archive


@contextmanager
def _opened(call: Call, point: Point, purpose: str) -> Iterator[Archive]:
    with _restore_job(call, point, purpose) as job_id, closing(_archive(call, job_id, point)) as archive:
        yield archive


def _newer(call: Call, point: Point) -> Iterator[AbstractContextManager[Archive]]:
    """The archives of newer recovery points of the same resource, to be opened: a few, the newest first."""
    points = [each for each in list_points(call, point.backup_vault_name) if each.resource_arn == point.resource_arn]
    newer = [each for each in points if completed(each) > completed(point)]
    for each in sorted(newer, key=completed, reverse=True)[:NEWER_MAX]:
        yield _opened(call, each, "copies")


@contextmanager
def _restore_job(call: Call, point: Point, purpose: str) -> Iterator[str]:
    """The id of a restore job that is open for as long as the context."""
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

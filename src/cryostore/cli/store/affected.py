"""What damage hurts, said for people: the same words for every verb that finds some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryostore.core.time import SECOND_MS, iso_text

if TYPE_CHECKING:
    from cryostore.maintenance.verification.affected import Affected, PointDamage
    from cryostore.model.operation import Call

POINTS_OPENED_MAX = 20
"""Of so many hurt points the files are looked at: that reads the whole catalog of each."""


def files_hurt(call: Call, damage: Affected) -> dict[str, str]:
    """What the damage means for the files of the newest hurt points, in words by ARN."""
    found = {point.recovery_point_arn: _files(call, point) for point in damage.points[:POINTS_OPENED_MAX]}
    return {arn: words for arn, words in found.items() if words}


def _files(call: Call, point: PointDamage) -> str:
    """The words about one point; none about one that another client made."""
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point
    from cryostore.agent.errors import DAMAGE
    from cryostore.agent.report import Report
    from cryostore.agent.verification.archive_check import verify_archive
    from cryostore.agent.verification.known_damage import fetch_known_damage
    from cryostore.core.errors import CryostoreError, KeyUnavailableError
    from cryostore.model.recovery_points import GetRecoveryPointRestoreMetadata

    report = Report()
    asked = GetRecoveryPointRestoreMetadata(backup_vault_name=point.vault, recovery_point_arn=point.recovery_point_arn)
    try:
        if "catalogObject" not in (call.call(asked).restore_metadata or {}):
            return ""
        found = find_point(call, point.recovery_point_arn, point.vault)
        with open_archive(call, found, "scrub") as archive:
            verify_archive(archive, report, data=False, damage=fetch_known_damage(call, found))
    except KeyUnavailableError:
        return "its files are encrypted: `cryo verify` with their key names those that are affected"
    except DAMAGE as error:
        return f"its files cannot be listed: {error.message}"
    except CryostoreError as error:
        return f"its files were not looked at: {error.message}"
    if not report.issue_count:
        return "all its files are whole: the damaged bytes belong to files that are gone, or newer points have copies"
    count = len({issue.path for issue in report.issues})
    return f"{count} of its files are affected: `cryo verify` names them"


def lines(damage: Affected, files: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """The recovery points and running jobs that are hurt, each with the objects, and with what `files_hurt` says."""
    for point in damage.points:
        yield f"hurt: {point.recovery_point_arn}"
        resource = shown(point.resource_name or point.resource_arn)
        yield f"  of {resource} in vault {point.vault}, created {iso_text(point.created_ms / SECOND_MS)}"
        if point.recovery_point_arn in files:
            yield f"  {files[point.recovery_point_arn]}"
        yield from _objects(point.objects, point.names)
    for job in damage.jobs:
        yield f"hurt: backup job {job.backup_job_id}, in progress"
        yield f"  of {shown(job.resource_arn)} in vault {job.vault}"
        yield from _objects(job.objects, job.names)


def _objects(count: int, names: list[str]) -> Iterator[str]:
    yield f"  {count} objects:" if count != 1 else "  1 object:"
    yield from (f"    {shown(name)}" for name in names)
    if count > len(names):
        yield f"    and {count - len(names)} more"


def shown(name: str) -> str:
    """A name on one line of a terminal, whatever it holds."""
    return name if name.isprintable() else ascii(name)

"""Recovery points and jobs affected by damage, as text: the same for check, repair and scrub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryostore.core.time import SECOND_MS, iso_text

if TYPE_CHECKING:
    from cryostore.maintenance.verification.affected import Affected, PointDamage
    from cryostore.model.operation import Call

POINTS_OPENED_MAX = 20
"""For so many points the affected files are counted, which reads the whole listing of each."""


def affected_files(call: Call, damage: Affected) -> dict[str, str]:
    """Return, by ARN, a sentence on the files of each of the newest affected points."""
    found = {point.recovery_point_arn: _files(call, point) for point in damage.points[:POINTS_OPENED_MAX]}
    return {arn: words for arn, words in found.items() if words}


def _files(call: Call, point: PointDamage) -> str:
    """Return the sentence on one point; an empty one if another client made the point."""
    from cryostore.agent.archive.open_archive import open_archive
    from cryostore.agent.archive.recovery_points import find_point
    from cryostore.agent.errors import DAMAGE
    from cryostore.agent.report import Report
    from cryostore.agent.verification.archive_check import fetch_known_damage, verify_archive
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
        return "its files are encrypted: `cryo verify` with their key names the affected ones"
    except DAMAGE as error:
        return f"its files cannot be listed: {error.message}"
    except CryostoreError as error:
        return f"its files were not checked: {error.message}"
    if not report.issue_count:
        return "none of its files is affected: the damaged bytes belong to deleted files, or newer points have copies"
    count = len({issue.path for issue in report.issues})
    return f"{count} of its files are affected: `cryo verify` names them"


def damage_lines(damage: Affected, files: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Yield lines on the affected recovery points and running jobs, with their objects and `affected_files`."""
    for point in damage.points:
        yield f"affected: {point.recovery_point_arn}"
        resource = shown(point.resource_name or point.resource_arn)
        yield f"  of {resource} in vault {point.vault}, created {iso_text(point.created_ms / SECOND_MS)}"
        if point.recovery_point_arn in files:
            yield f"  {files[point.recovery_point_arn]}"
        yield from _objects(point.objects, point.names)
    for job in damage.jobs:
        yield f"affected: backup job {job.backup_job_id}, in progress"
        yield f"  of {shown(job.resource_arn)} in vault {job.vault}"
        yield from _objects(job.objects, job.names)


def _objects(count: int, names: list[str]) -> Iterator[str]:
    yield f"  {count} objects:" if count != 1 else "  1 object:"
    yield from (f"    {shown(name)}" for name in names)
    if count > len(names):
        yield f"    and {count - len(names)} more"


def shown(name: str) -> str:
    """Return a name in one line of printable text."""
    return name if name.isprintable() else ascii(name)

"""Recovery points: listed, and found by ARN, id, prefix of an id, or `latest`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryostore.client import pages
from cryostore.core.errors import ConfigurationError
from cryostore.model.errors import InvalidParameterValueException, ResourceNotFoundException
from cryostore.model.operation import Call
from cryostore.model.recovery_points import (
    DescribeRecoveryPoint,
    ListRecoveryPointsByBackupVault,
    RecoveryPointByBackupVault,
)
from cryostore.model.vaults import DescribeBackupVault, ListBackupVaults

ROLE_ARN = "arn:aws:iam::000000000000:role/cryo-agent"
"""The role that the agent names in its requests."""
ID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
READABLE = ("COMPLETED", "PARTIAL", "EXPIRED", "AVAILABLE")
RecoveryPoint = RecoveryPointByBackupVault


def point_id(point: RecoveryPoint) -> str:
    """Return the id of a recovery point: the last part of its ARN."""
    return (point.recovery_point_arn or "").rpartition(":")[2]


def completion_seconds(point: RecoveryPoint) -> float:
    """Return when a recovery point was completed. The store keeps this increasing even if clocks run back."""
    return point.completion_date or point.creation_date or 0.0


def list_points(call: Call, vault: str | None = None, resource: str | None = None) -> Iterator[RecoveryPoint]:
    """Return the readable recovery points of one vault or of all, newest first within each vault."""
    for name in [vault] if vault else _vaults(call):
        for point in pages.items(call, ListRecoveryPointsByBackupVault(backup_vault_name=name)):
            if point.status in READABLE and _is_of(point, resource):
                yield point


def _is_of(point: RecoveryPoint, resource: str | None) -> bool:
    return resource in (None, point.resource_name, point.resource_arn)


def _vaults(call: Call) -> list[str]:
    found = pages.items(call, ListBackupVaults())
    return [vault.backup_vault_name for vault in found if vault.backup_vault_name]


def find_point(call: Call, text: str, vault: str | None = None, resource: str | None = None) -> RecoveryPoint:
    """Return the one recovery point that `text` names. Raises ConfigurationError if there is none or more than one.

    A full ARN or id is looked up directly; any other text is searched for among all recovery points.
    """
    unknown = ConfigurationError(f"there is no recovery point {text!a}", hint="`cryo points` lists them")
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
        return max(points, key=completion_seconds)
    wanted = text.upper()
    found = [point for point in points if wanted and point_id(point).startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise unknown
    raise ConfigurationError(
        f"{text!a} is the beginning of the ids of several recovery points", hint="`cryo points` lists them"
    )


def _described(call: Call, text: str, vault: str | None) -> RecoveryPoint | None:
    """Return the recovery point with this ARN or id from whichever vault has it; None if the store does not find it."""
    for each in [vault] if vault else _vaults(call):
        arn = text
        if not text.startswith("arn:"):
            vault_arn = call.call(DescribeBackupVault(backup_vault_name=each)).backup_vault_arn or ""
            arn = f"{vault_arn.partition(':backup-vault:')[0]}:recovery-point:{text.upper()}"
        try:
            found = call.call(DescribeRecoveryPoint(backup_vault_name=each, recovery_point_arn=arn))
        except (ResourceNotFoundException, InvalidParameterValueException):
            continue
        return RecoveryPoint(**{name: getattr(found, name, None) for name in RecoveryPoint.__struct_fields__})
    return None


def split_point(text: str) -> tuple[str, str]:
    """Split `POINT[:PATH]` into POINT and PATH. An ARN itself has colons: its path begins after the seventh."""
    colons = 7 if text.startswith("arn:") else 1
    parts = text.split(":", colons)
    return ":".join(parts[:colons]), parts[colons] if len(parts) > colons else ""

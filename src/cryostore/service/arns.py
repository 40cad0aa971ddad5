"""ARNs of vaults and recovery points, and the types of resources (control plane 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

from cryostore.service.settings import Settings

KINDS = {kind.lower(): kind for kind in ("Stream", "FileSet", "Disk", "VirtualMachine", "Database")}
FOREIGN_TYPES = (
    ("ec2", "volume", "EBS"),
    ("ec2", "instance", "EC2"),
    ("elasticfilesystem", "", "EFS"),
    ("backup-gateway", "vm", "VirtualMachine"),
    ("s3", "", "S3"),
)


@dataclass(frozen=True, slots=True)
class Arns:
    """ARNs in this server's account and region."""

    settings: Settings

    def vault(self, name: str) -> str:
        """The ARN of a vault."""
        return f"{self._prefix}:backup-vault:{name}"

    def point(self, point_id: str) -> str:
        """The ARN of a recovery point."""
        return f"{self._prefix}:recovery-point:{point_id}"

    def point_id(self, arn: str) -> str | None:
        """The id of a recovery point by its ARN; None for an ARN of another account, region or kind."""
        prefix = self.point("")
        return arn.removeprefix(prefix).upper() if arn.startswith(prefix) else None

    @property
    def _prefix(self) -> str:
        return f"arn:aws:backup:{self.settings.region}:{self.settings.account_id}"


def resource_type(arn: str) -> str:
    """The type of a resource by its ARN: one of `cryo`, one of a known AWS service, or Generic."""
    parts = arn.split(":")
    service, resource = (parts[2], ":".join(parts[5:])) if len(parts) > 5 else ("", "")
    if service == "cryo":
        return KINDS.get(parts[5].lower(), "Generic")
    for known, prefix, name in FOREIGN_TYPES:
        if service == known and resource.startswith(prefix):
            return name
    return "Generic"

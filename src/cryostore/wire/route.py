"""Routing: the operation that a method and a raw path name.

The rule of this file: a path is split at `/` first, and each segment is decoded afterwards (Backup Storage A.4), so an
object named `x/complete` never becomes another operation. A path has one reading:

1. The templates of the declarations, segment by segment; a fixed word has precedence over a variable.
2. A trailing slash is optional in AWS Backup's templates. On the Backup Storage paths it belongs to the object name.
3. A longer path under `/backup-jobs/J/object/` is an object name with raw slashes, as AWS.jl sends it (A.5): of a
   PutObject if it ends in `/put-object`, otherwise of a StartObject or DeleteObject.

The last table of this file has the operations of AWS Backup that are not served, so that a refusal can name them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryostore.model import OPERATIONS
from cryostore.model.errors import InvalidRequestException, UnknownOperationException, invalid_argument
from cryostore.model.operation import Api, Declaration
from cryostore.wire import scalar

OBJECT_NAME = "objectName"
"""The label that may contain raw slashes."""

BACKUP_ROOTS = frozenset(
    (
        *("account-settings", "audit", "backup", "backup-access-point", "backup-jobs", "backup-vaults", "copy-jobs"),
        *("global-settings", "indexes", "legal-holds", "logically-air-gapped-backup-vaults", "resources"),
        *("restore-access-backup-vaults", "restore-jobs", "restore-testing", "scan", "supported-resource-types"),
        *("tags", "tiering-configurations", "untag"),
    )
)
"""The first segments of all paths of AWS Backup, served or not."""


@dataclass(frozen=True, slots=True)
class Route:
    """An operation and the decoded labels of its path, by their names in the template."""

    declaration: Declaration
    labels: dict[str, str]


@dataclass(slots=True)
class _Node:
    """A node in the tree of templates: the next nodes, and by method the templates that end here."""

    words: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    ends: dict[str, _Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Template:
    declaration: Declaration
    segments: tuple[str, ...]
    """The segments of the template; a variable is in braces."""
    labels: tuple[tuple[int, str, str], ...]
    """Segment index, label and API name of each variable."""

    def slashed_name(self, raw: list[str]) -> list[str] | None:
        """Return the segments with a slashed object name joined into one; None if the path has another template."""
        start = self.segments.index(f"{{{OBJECT_NAME}}}")
        after = len(self.segments) - start - 1
        if len(raw) <= len(self.segments) or (after and raw[-after:] != list(self.segments[start + 1 :])):
            return None
        if any(word != given for word, given in zip(self.segments[:start], raw, strict=False) if word[0] != "{"):
            return None
        if any(is_dots(segment) for segment in raw[start:]):
            raise invalid_argument(self.declaration.api.value, "ObjectName", None, DOTS_RULE)
        return [*raw[:start], "/".join(raw[start : len(raw) - after]), *raw[len(raw) - after :]]


DOTS_RULE = "must not be '.' or '..', nor contain them between unencoded slashes"


def is_dots(segment: str) -> bool:
    """Whether signers and proxies could interpret this raw segment as `.` or `..` instead of a name."""
    return segment in (".", "..") or segment.lower() in ("%2e", ".%2e", "%2e.", "%2e%2e")


def match(method: str, path: str) -> Route:
    """Return the operation that a method and a raw path name.

    Raises the API's error for a wrong argument if a label cannot be decoded or is a dot segment,
    InvalidRequestException if AWS Backup has such a path but this server does not serve it, and otherwise
    UnknownOperationException.
    """
    raw = path.split("/")[1:]
    template = None
    if raw and raw[-1] == "":
        template = _find(method, raw[:-1])
        if template is not None and template.declaration.api is not Api.BACKUP:
            template = None
    if template is None:
        template = _find(method, raw)
    if template is not None:
        return _route(template, raw)
    for template in SLASHED.get(method, ()):
        if (joined := template.slashed_name(raw)) is not None:
            return _route(template, joined)
    if raw and raw[0] in BACKUP_ROOTS:
        name = _unserved_name(method, raw[:-1] if raw[-1] == "" else raw) or "this method and path"
        raise InvalidRequestException(f"{name}: not supported by this server: {method} {path[:200]!a}")
    raise UnknownOperationException(f"no operation has this method and path: {method} {path[:200]!a}")


def _find(method: str, raw: list[str]) -> _Template | None:
    node: _Node | None = ROOT
    for segment in raw:
        assert node is not None
        node = node.words.get(segment) or node.variable
        if node is None:
            return None
    return node.ends.get(method) if node is not None else None


def _route(template: _Template, raw: list[str]) -> Route:
    labels = {}
    for index, label, name in template.labels:
        try:
            labels[label] = value = scalar.percent_decode(raw[index])
        except ValueError as error:
            raise invalid_argument(template.declaration.api.value, name, raw[index], str(error)) from None
        if value in (".", ".."):
            raise invalid_argument(template.declaration.api.value, name, value, "must not be '.' or '..'")
    return Route(template.declaration, labels)


def _compile() -> tuple[_Node, dict[str, list[_Template]]]:
    root = _Node()
    slashed: dict[str, list[_Template]] = {}
    for declaration in OPERATIONS.values():
        names = {member.wire_name: member.name for member in declaration.members}
        segments = tuple(declaration.path.strip("/").split("/"))
        labels = tuple((i, s[1:-1], names[s[1:-1]]) for i, s in enumerate(segments) if s[0] == "{")
        template = _Template(declaration, segments, labels)
        node = root
        for segment in segments:
            if segment[0] == "{":
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.words.setdefault(segment, _Node())
        assert declaration.method not in node.ends, f"two operations have the path of {declaration.name}"
        node.ends[declaration.method] = template
        if f"{{{OBJECT_NAME}}}" in segments:
            slashed.setdefault(declaration.method, []).append(template)
    for templates in slashed.values():
        templates.sort(key=lambda one: -len(one.segments))  # the template of PutObject before that of StartObject
    return root, slashed


def _unserved_name(method: str, segments: list[str]) -> str | None:
    """Return the operation that a method and the raw segments of a path name; None if unknown.

    The segments have no trailing slash. A fixed word has precedence over a label.
    """
    found = [
        (sum(word == "{}" for word in template), name)
        for name, known, template in UNSERVED_TEMPLATES
        if known == method and len(template) == len(segments) and _fits(template, segments)
    ]
    return min(found)[1] if found else None


def _fits(template: tuple[str, ...], segments: list[str]) -> bool:
    return all(word in ("{}", given) for word, given in zip(template, segments, strict=True))


ROOT, SLASHED = _compile()

UNSERVED = """
AssociateBackupVaultMpaApprovalTeam PUT /backup-vaults/{}/mpaApprovalTeam
CancelLegalHold DELETE /legal-holds/{}
CreateBackupAccessPoint PUT /backup-access-point/create
CreateBackupPlan PUT /backup/plans
CreateBackupSelection PUT /backup/plans/{}/selections
CreateFramework POST /audit/frameworks
CreateLegalHold POST /legal-holds
CreateLogicallyAirGappedBackupVault PUT /logically-air-gapped-backup-vaults/{}
CreateReportPlan POST /audit/report-plans
CreateRestoreAccessBackupVault PUT /restore-access-backup-vaults
CreateRestoreTestingPlan PUT /restore-testing/plans
CreateRestoreTestingSelection PUT /restore-testing/plans/{}/selections
CreateTieringConfiguration PUT /tiering-configurations
DeleteBackupAccessPoint DELETE /backup-access-point/delete/{}
DeleteBackupPlan DELETE /backup/plans/{}
DeleteBackupSelection DELETE /backup/plans/{}/selections/{}
DeleteBackupVaultAccessPolicy DELETE /backup-vaults/{}/access-policy
DeleteBackupVaultLockConfiguration DELETE /backup-vaults/{}/vault-lock
DeleteBackupVaultNotifications DELETE /backup-vaults/{}/notification-configuration
DeleteFramework DELETE /audit/frameworks/{}
DeleteReportPlan DELETE /audit/report-plans/{}
DeleteRestoreTestingPlan DELETE /restore-testing/plans/{}
DeleteRestoreTestingSelection DELETE /restore-testing/plans/{}/selections/{}
DeleteTieringConfiguration DELETE /tiering-configurations/{}
DescribeBackupAccessPoint GET /backup-access-point/{}
DescribeCopyJob GET /copy-jobs/{}
DescribeFramework GET /audit/frameworks/{}
DescribeGlobalSettings GET /global-settings
DescribeProtectedResource GET /resources/{}
DescribeRegionSettings GET /account-settings
DescribeReportJob GET /audit/report-jobs/{}
DescribeReportPlan GET /audit/report-plans/{}
DescribeScanJob GET /scan/jobs/{}
DisassociateBackupVaultMpaApprovalTeam POST /backup-vaults/{}/mpaApprovalTeam
DisassociateRecoveryPoint POST /backup-vaults/{}/recovery-points/{}/disassociate
DisassociateRecoveryPointFromParent DELETE /backup-vaults/{}/recovery-points/{}/parentAssociation
ExportBackupPlanTemplate GET /backup/plans/{}/toTemplate
GetBackupPlan GET /backup/plans/{}
GetBackupPlanFromJSON POST /backup/template/json/toPlan
GetBackupPlanFromTemplate GET /backup/template/plans/{}/toPlan
GetBackupSelection GET /backup/plans/{}/selections/{}
GetBackupVaultAccessPolicy GET /backup-vaults/{}/access-policy
GetBackupVaultNotifications GET /backup-vaults/{}/notification-configuration
GetLegalHold GET /legal-holds/{}
GetPITRMalwareScanResults GET /scan/pitr-malware-scan-results
GetRecoveryPointIndexDetails GET /backup-vaults/{}/recovery-points/{}/index
GetRestoreJobMetadata GET /restore-jobs/{}/metadata
GetRestoreTestingInferredMetadata GET /restore-testing/inferred-metadata
GetRestoreTestingPlan GET /restore-testing/plans/{}
GetRestoreTestingSelection GET /restore-testing/plans/{}/selections/{}
GetSupportedResourceTypes GET /supported-resource-types
GetTieringConfiguration GET /tiering-configurations/{}
ListBackupAccessPoints GET /backup-access-point
ListBackupAccessPointsByRecoveryPoint POST /backup-access-point/recovery-point/{}
ListBackupAccessPointsByResource POST /backup-access-point/resource/{}
ListBackupJobSummaries GET /audit/backup-job-summaries
ListBackupPlanTemplates GET /backup/template/plans
ListBackupPlanVersions GET /backup/plans/{}/versions
ListBackupPlans GET /backup/plans
ListBackupSelections GET /backup/plans/{}/selections
ListCopyJobSummaries GET /audit/copy-job-summaries
ListCopyJobs GET /copy-jobs
ListFrameworks GET /audit/frameworks
ListIndexedRecoveryPoints GET /indexes/recovery-point
ListLegalHolds GET /legal-holds
ListProtectedResources GET /resources
ListProtectedResourcesByBackupVault GET /backup-vaults/{}/resources
ListRecoveryPointsByLegalHold GET /legal-holds/{}/recovery-points
ListRecoveryPointsByResource GET /resources/{}/recovery-points
ListReportJobs GET /audit/report-jobs
ListReportPlans GET /audit/report-plans
ListRestoreAccessBackupVaults GET /logically-air-gapped-backup-vaults/{}/restore-access-backup-vaults
ListRestoreJobSummaries GET /audit/restore-job-summaries
ListRestoreJobsByProtectedResource GET /resources/{}/restore-jobs
ListRestoreTestingPlans GET /restore-testing/plans
ListRestoreTestingSelections GET /restore-testing/plans/{}/selections
ListScanJobSummaries GET /audit/scan-job-summaries
ListScanJobs GET /scan/jobs
ListTags GET /tags/{}
ListTieringConfigurations GET /tiering-configurations
PutBackupVaultAccessPolicy PUT /backup-vaults/{}/access-policy
PutBackupVaultLockConfiguration PUT /backup-vaults/{}/vault-lock
PutBackupVaultNotifications PUT /backup-vaults/{}/notification-configuration
PutRestoreValidationResult PUT /restore-jobs/{}/validations
RevokeRestoreAccessBackupVault DELETE /logically-air-gapped-backup-vaults/{}/restore-access-backup-vaults/{}
StartCopyJob PUT /copy-jobs
StartReportJob POST /audit/report-jobs/{}
StartScanJob PUT /scan/job
TagResource POST /tags/{}
UntagResource POST /untag/{}
UpdateBackupPlan POST /backup/plans/{}
UpdateFramework PUT /audit/frameworks/{}
UpdateGlobalSettings PUT /global-settings
UpdateRecoveryPointIndexSettings POST /backup-vaults/{}/recovery-points/{}/index
UpdateRecoveryPointLifecycle POST /backup-vaults/{}/recovery-points/{}
UpdateRegionSettings PUT /account-settings
UpdateReportPlan PUT /audit/report-plans/{}
UpdateRestoreTestingPlan PUT /restore-testing/plans/{}
UpdateRestoreTestingSelection PUT /restore-testing/plans/{}/selections/{}
UpdateTieringConfiguration PUT /tiering-configurations/{}
"""
"""Name, method and path template of each; a label is `{}`."""

UNSERVED_TEMPLATES = tuple(
    (name, method, tuple(path.split("/")[1:]))
    for name, method, path in (line.split() for line in UNSERVED.split("\n")[1:-1])
)

"""Operations of AWS Backup that are not served, by method and path, so that a refusal can name them."""

from __future__ import annotations

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

TEMPLATES = tuple(
    (name, method, tuple(path.split("/")[1:]))
    for name, method, path in (line.split() for line in UNSERVED.split("\n")[1:-1])
)


def unserved_name(method: str, segments: list[str]) -> str | None:
    """Return the operation that a method and the raw segments of a path name; None if unknown.

    The segments have no trailing slash. A fixed word has precedence over a label.
    """
    found = [
        (sum(word == "{}" for word in template), name)
        for name, known, template in TEMPLATES
        if known == method and len(template) == len(segments) and _fits(template, segments)
    ]
    return min(found)[1] if found else None


def _fits(template: tuple[str, ...], segments: list[str]) -> bool:
    return all(word in ("{}", given) for word, given in zip(template, segments, strict=True))

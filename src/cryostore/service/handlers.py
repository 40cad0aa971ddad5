"""Table of handlers: the function that carries out each operation."""

from __future__ import annotations

from typing import Any

from cryostore.model.chunks import GetChunk, LinkChunks, ListChunks, ListDamagedChunks, PutChunk
from cryostore.model.jobs import (
    CommitBackupJob,
    DescribeBackupJob,
    GetIncrementalBaseBackup,
    ListBackupJobs,
    StartBackupJob,
    StopBackupJob,
)
from cryostore.model.objects import (
    DeleteObject,
    GetObjectMetadata,
    ListObjects,
    NotifyObjectComplete,
    PutObject,
    StartObject,
)
from cryostore.model.operation import Operation
from cryostore.model.recovery_points import (
    DeleteRecoveryPoint,
    DescribeRecoveryPoint,
    GetRecoveryPointRestoreMetadata,
    ListRecoveryPointsByBackupVault,
)
from cryostore.model.restore_jobs import CompleteRestoreJob, DescribeRestoreJob, ListRestoreJobs, StartRestoreJob
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, DescribeBackupVault, ListBackupVaults
from cryostore.service.context import Handler
from cryostore.service.operations.chunks.link import link_chunks
from cryostore.service.operations.chunks.put import put_chunk
from cryostore.service.operations.chunks.read import get_chunk, list_chunks, list_damaged_chunks
from cryostore.service.operations.jobs.commit import commit_backup_job
from cryostore.service.operations.jobs.describe import describe_backup_job, list_backup_jobs
from cryostore.service.operations.jobs.incremental_base import get_incremental_base_backup
from cryostore.service.operations.jobs.start import start_backup_job
from cryostore.service.operations.jobs.stop import stop_backup_job
from cryostore.service.operations.objects.put import delete_object, put_object
from cryostore.service.operations.objects.read import get_object_metadata, list_objects
from cryostore.service.operations.objects.upload import notify_object_complete, start_object
from cryostore.service.operations.recovery_points import (
    delete_recovery_point,
    describe_recovery_point,
    get_recovery_point_restore_metadata,
    list_recovery_points_by_backup_vault,
)
from cryostore.service.operations.restore_jobs import (
    complete_restore_job,
    describe_restore_job,
    list_restore_jobs,
    start_restore_job,
)
from cryostore.service.operations.vaults import (
    create_backup_vault,
    delete_backup_vault,
    describe_backup_vault,
    list_backup_vaults,
)

HANDLERS: dict[type[Operation[Any]], Handler] = {
    StartObject: start_object,
    PutObject: put_object,
    DeleteObject: delete_object,
    NotifyObjectComplete: notify_object_complete,
    PutChunk: put_chunk,
    LinkChunks: link_chunks,
    ListObjects: list_objects,
    ListChunks: list_chunks,
    GetChunk: get_chunk,
    GetObjectMetadata: get_object_metadata,
    CreateBackupVault: create_backup_vault,
    DescribeBackupVault: describe_backup_vault,
    ListBackupVaults: list_backup_vaults,
    DeleteBackupVault: delete_backup_vault,
    StartBackupJob: start_backup_job,
    DescribeBackupJob: describe_backup_job,
    ListBackupJobs: list_backup_jobs,
    StopBackupJob: stop_backup_job,
    CommitBackupJob: commit_backup_job,
    GetIncrementalBaseBackup: get_incremental_base_backup,
    ListRecoveryPointsByBackupVault: list_recovery_points_by_backup_vault,
    DescribeRecoveryPoint: describe_recovery_point,
    DeleteRecoveryPoint: delete_recovery_point,
    GetRecoveryPointRestoreMetadata: get_recovery_point_restore_metadata,
    ListDamagedChunks: list_damaged_chunks,
    StartRestoreJob: start_restore_job,
    DescribeRestoreJob: describe_restore_job,
    ListRestoreJobs: list_restore_jobs,
    CompleteRestoreJob: complete_restore_job,
}

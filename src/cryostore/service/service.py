"""The service as one object: every operation, whether it comes over HTTP or from the same process, is a call of it.

The table of handlers names the function that carries out each operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

from cryostore.catalog.migration import require_readable
from cryostore.catalog.rows import packs
from cryostore.chunks.blobs import BlobStore
from cryostore.core.errors import (
    ConfigurationError,
    CryostoreError,
    DamagedDataError,
    KeyMissingError,
    KeyUnavailableError,
    StorageFullError,
    StorageUnavailableError,
)
from cryostore.model.chunks import GetChunk, LinkChunks, ListChunks, ListDamagedChunks, PutChunk
from cryostore.model.errors import (
    DamagedDataException,
    KMSInvalidKeyUsageException,
    ServiceInternalException,
    ServiceUnavailableException,
)
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
from cryostore.service.access import AccessKeys
from cryostore.service.context import Caller, Context, Handler
from cryostore.service.operations.chunks.link import link_chunks
from cryostore.service.operations.chunks.put import put_chunk
from cryostore.service.operations.chunks.read import get_chunk, list_chunks, list_damaged_chunks
from cryostore.service.operations.damage import DAMAGED_MESSAGE
from cryostore.service.operations.jobs.commit import commit_backup_job, stop_backup_job
from cryostore.service.operations.jobs.describe import (
    describe_backup_job,
    get_incremental_base_backup,
    list_backup_jobs,
)
from cryostore.service.operations.jobs.start import start_backup_job
from cryostore.service.operations.objects.read import get_object_metadata, list_objects
from cryostore.service.operations.objects.write import delete_object, notify_object_complete, put_object, start_object
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
from cryostore.service.reserve import brings_data

Out = TypeVar("Out")
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


class Service:
    """All operations on one open store. Thread safe; holds the store's files open until `close`.

    `is_current` asks the blobs whether no other catalog has taken them over. `release` is called last by `close`.
    """

    def __init__(
        self,
        context: Context,
        access: AccessKeys,
        blobs: BlobStore,
        *,
        is_current: Callable[[], bool] = lambda: True,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.context = context
        self.access = access
        self._blobs = blobs
        self._is_current = is_current
        self._release = release
        self.outdated = False
        """Whether this program may no longer use the catalog: every call is refused. Set by `check_still_current`."""

    def call(self, operation: Operation[Out], caller: Caller) -> Out:
        """Carry out an operation for a caller. Raises a `ModelError`; any other exception is a defect.

        Blocks until the result is durable. Checks the arguments, for callers in process, too. The message of an error
        names no path and no key; its cause does, for the operator's log.
        """
        operation.declaration.check(operation, self.context.limits)
        if self.outdated:
            raise ServiceUnavailableException("this server is out of date and no longer answers")
        try:
            return self._carry_out(operation, caller)
        except StorageFullError as error:
            raise ServiceUnavailableException(f"disk full on {os.uname().nodename}; retry later") from error
        except StorageUnavailableError as error:
            raise ServiceUnavailableException("the storage cannot take or give bytes now; retry later") from error
        except OSError as error:
            failure = StorageUnavailableError(f"{type(operation).__name__}: {error.strerror or error}")
            failure.__cause__ = error
            raise ServiceUnavailableException("the storage cannot take or give bytes now; retry later") from failure
        except KeyMissingError as error:
            raise ServiceUnavailableException(
                f"this server lacks master key {error.key_id}, which another server may have; retry later"
            ) from error
        except KeyUnavailableError as error:
            raise KMSInvalidKeyUsageException("the key that protects this data cannot be used") from error
        except DamagedDataError as error:
            if brings_data(operation):  # the bytes that it sealed did not open: another attempt may succeed
                raise ServiceInternalException("the data could not be stored; the server's log says why") from error
            raise DamagedDataException(DAMAGED_MESSAGE) from error

    def _carry_out(self, operation: Operation[Out], caller: Caller) -> Out:
        """Run the handler, with the reserve for an operation that brings no new data."""
        reserve, handler = self.context.reserve, HANDLERS[type(operation)]
        if brings_data(operation):
            try:
                reserve.check()  # before a byte of it is written
            except StorageFullError as error:
                raise ServiceUnavailableException(f"{error.message}; retry later") from error
            return cast("Out", handler(self.context, operation, caller))
        with reserve.spending():
            return cast("Out", handler(self.context, operation, caller))

    def check_still_current(self) -> None:
        """Raise ConfigurationError if this program may no longer use its catalog.

        Another catalog may have taken over the blobs: garbage collection by the old one would delete data that the new
        one needs. Or a newer program may have migrated the schema beyond what this one can read. Call it regularly,
        and before background tasks. Raises StorageUnavailableError if the answer is not known now.
        """
        if not self.outdated and self._is_current():
            try:
                self.context.database.read(require_readable)
            except ConfigurationError:
                self.outdated = True
                raise
            return
        self.outdated = True
        raise ConfigurationError(
            "another catalog has taken over this store's blobs; this server no longer answers",
            hint="start the server on the catalog that was rebuilt or moved last",
        )

    def try_blobs(self) -> None:
        """Make a small request to the blob store. Raises StorageUnavailableError if it fails."""
        self._is_current()

    def as_caller(self, caller: Caller) -> CallAs:
        """A `Call` that carries out operations for one caller."""
        return CallAs(self, caller)

    def close(self) -> None:
        """Finish the writes in progress and release all resources. No call may follow."""
        self.context.store.close()
        if whole := self.context.store.take_whole():
            with suppress(CryostoreError):  # the next process that opens the store closes them, as after a crash
                self.context.database.write(partial(packs.close_all, names=whole))
        self.context.database.close()
        self._blobs.close()
        self._release()


class CallAs:
    """A `Call` on the service in process, always for the same caller."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    def call(self, operation: Operation[Out]) -> Out:
        """See `Service.call`."""
        return self._service.call(operation, self._caller)

"""The service as one object: the table of handlers, and the call that every face of Cryostore goes through."""

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
from cryostore.service.operations import (
    chunks,
    commits,
    damage,
    jobs,
    objects,
    recovery_points,
    restore_jobs,
    restores,
    uploads,
    vaults,
)
from cryostore.service.reserve import brings_data

Out = TypeVar("Out")

HANDLERS: dict[type[Operation[Any]], Handler] = {
    StartObject: objects.start_object,
    PutObject: objects.put_object,
    DeleteObject: objects.delete_object,
    NotifyObjectComplete: uploads.notify_object_complete,
    PutChunk: chunks.put_chunk,
    LinkChunks: chunks.link_chunks,
    ListObjects: restores.list_objects,
    ListChunks: restores.list_chunks,
    GetChunk: restores.get_chunk,
    GetObjectMetadata: restores.get_object_metadata,
    CreateBackupVault: vaults.create_backup_vault,
    DescribeBackupVault: vaults.describe_backup_vault,
    ListBackupVaults: vaults.list_backup_vaults,
    DeleteBackupVault: vaults.delete_backup_vault,
    StartBackupJob: jobs.start_backup_job,
    DescribeBackupJob: jobs.describe_backup_job,
    ListBackupJobs: jobs.list_backup_jobs,
    StopBackupJob: jobs.stop_backup_job,
    CommitBackupJob: commits.commit_backup_job,
    GetIncrementalBaseBackup: commits.get_incremental_base_backup,
    ListRecoveryPointsByBackupVault: recovery_points.list_recovery_points_by_backup_vault,
    DescribeRecoveryPoint: recovery_points.describe_recovery_point,
    DeleteRecoveryPoint: recovery_points.delete_recovery_point,
    GetRecoveryPointRestoreMetadata: recovery_points.get_recovery_point_restore_metadata,
    ListDamagedChunks: damage.list_damaged_chunks,
    StartRestoreJob: restore_jobs.start_restore_job,
    DescribeRestoreJob: restore_jobs.describe_restore_job,
    ListRestoreJobs: restore_jobs.list_restore_jobs,
    CompleteRestoreJob: restore_jobs.complete_restore_job,
}


class Service:
    """All operations, in process. Thread safe; holds a store's files open until `close`.

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
        """Whether this program may not go on with this catalog: then it answers nothing. Found out by `look_around`."""

    def call(self, operation: Operation[Out], caller: Caller) -> Out:
        """Carry out an operation for a caller. Raises a `ModelError`; anything else is a defect.

        Blocks until what it answers is durable. Arguments are checked here, whoever calls. What failed inside, with
        its places and keys, is the cause of the error and not in its message: that is for the operator's log.
        """
        operation.declaration.check(operation, self.context.limits)
        if self.outdated:
            raise ServiceUnavailableException("this server is out of date, and answers no more")
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
            if brings_data(operation):  # what it sealed did not open again: another attempt may get past that
                raise ServiceInternalException("the data could not be stored; the server's log says why") from error
            raise DamagedDataException(damage.DAMAGED) from error

    def _carry_out(self, operation: Operation[Out], caller: Caller) -> Out:
        """Let the handler do it, and use the reserve if it brings no new data."""
        reserve, handler = self.context.reserve, HANDLERS[type(operation)]
        if brings_data(operation):
            try:
                reserve.check()  # before a byte of it is written
            except StorageFullError as error:
                raise ServiceUnavailableException(f"{error.message}; retry later") from error
            return cast("Out", handler(self.context, operation, caller))
        with reserve.spending():
            return cast("Out", handler(self.context, operation, caller))

    def look_around(self) -> None:
        """Find out whether this program may go on with this catalog. Raises ConfigurationError if not.

        Another catalog may have taken over the blobs: who goes by an old one deletes what the new one needs. Or a newer
        program may have made a schema that leaves no room for this one. To be called from time to time, before any
        duty. Raises StorageUnavailableError if it cannot be known now.
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
            "another catalog has taken over this store's blobs; nothing is answered from here any more",
            hint="start with the catalog that was rebuilt or moved last",
        )

    def try_blobs(self) -> None:
        """Ask the place of the blobs for something small. Raises StorageUnavailableError if it cannot be used."""
        self._is_current()

    def as_caller(self, caller: Caller) -> CallAs:
        """The service as a `Call` that one caller makes."""
        return CallAs(self, caller)

    def close(self) -> None:
        """Finish what is being written and let go of everything. The service must not be called any more."""
        self.context.store.close()
        if whole := self.context.store.take_whole():
            with suppress(CryostoreError):  # who opens the store next finds out, as after a crash
                self.context.database.write(partial(packs.close_all, names=whole))
        self.context.database.close()
        self._blobs.close()
        self._release()


class CallAs:
    """A `Call` on the service in process, always by the same caller."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    def call(self, operation: Operation[Out]) -> Out:
        """See `Service.call`."""
        return self._service.call(operation, self._caller)

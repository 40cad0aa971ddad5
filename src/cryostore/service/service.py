"""The service as one object: the table of handlers, and the call that every face of Cryostore goes through."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

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
from cryostore.model.errors import (
    DamagedDataException,
    KMSInvalidKeyUsageException,
    ServiceInternalException,
    ServiceUnavailableException,
)
from cryostore.model.operation import Operation
from cryostore.service.access import AccessKeys
from cryostore.service.context import Caller, Context
from cryostore.service.handlers import HANDLERS
from cryostore.service.operations.damage import DAMAGED_MESSAGE
from cryostore.service.reserve import brings_data

Out = TypeVar("Out")


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
        """Whether this program may not go on with this catalog: then it answers nothing. Found out by `check_still_current`."""

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
            raise DamagedDataException(DAMAGED_MESSAGE) from error

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

    def check_still_current(self) -> None:
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

"""What a caller is told when the service fails in a way the API does not model. The details go to the log alone."""

from __future__ import annotations

from cryostore.core.errors import CryostoreError, KeyUnavailableError, StorageUnavailableError
from cryostore.model.errors import (
    KMSInvalidKeyUsageException,
    ModelError,
    ServiceInternalException,
    ServiceUnavailableException,
)


def modelled(error: Exception) -> ModelError:
    """The modelled error that stands for `error`: itself, if it is one."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, StorageUnavailableError):
        return ServiceUnavailableException("the storage cannot take or give bytes now; retry later")
    if isinstance(error, KeyUnavailableError):
        return KMSInvalidKeyUsageException("the key that protects this data cannot be used")
    return ServiceInternalException("an internal failure; the server's log has the details under this request id")


def cause(error: Exception) -> BaseException | None:
    """What the log must tell of `error`: what failed inside, or None where nothing did and the caller is to blame."""
    if not isinstance(error, ModelError):
        return error
    inside = error.__cause__
    return inside if isinstance(inside, CryostoreError) and not isinstance(inside, ModelError) else None

"""Errors of both APIs, one class each: name, members and HTTP status.

Their JSON is in `cryostore.wire.error`. Where the two APIs give one name two statuses (ResourceNotFoundException is 404
on the data plane and 400 on the control plane), the class has both.

    ModelError
    +-- IllegalArgumentException, DataAlreadyExistsException, KMSInvalidKeyUsageException, ...   Backup Storage
    +-- InvalidParameterValueException, MissingParameterValueException, ...                      AWS Backup
    +-- AccessDeniedException, ResourceNotFoundException, ThrottlingException, ...               both
    +-- DamagedDataException                                                                     Cryostore
    +-- SignatureError: the caller could not be authenticated
"""

from __future__ import annotations

from typing import Any, ClassVar

from cryostore.core.errors import CryostoreError

VALUE_CHARACTERS_MAX = 100


class ModelError(CryostoreError):
    """Base of all errors that a caller of the API can receive. The class name is the name on the wire."""

    status: ClassVar[int] = 400
    status_control: ClassVar[int | None] = None
    """The status on the control plane, if it differs."""

    def members(self) -> dict[str, Any]:
        """The modelled members besides Message, without absent ones."""
        return {}


class IllegalArgumentException(ModelError):
    """A wrong argument; a retry cannot help."""


class DataAlreadyExistsException(ModelError):
    """The object or chunk exists already with other data; has the checksum of the present data."""

    def __init__(self, message: str, *, checksum: str | None = None, checksum_algorithm: str | None = None) -> None:
        super().__init__(message)
        self.checksum = checksum
        self.checksum_algorithm = checksum_algorithm

    def members(self) -> dict[str, Any]:
        present = {"Checksum": self.checksum, "ChecksumAlgorithm": self.checksum_algorithm}
        return {name: value for name, value in present.items() if value is not None}


class KMSInvalidKeyUsageException(ModelError):
    """The key that protects this data is missing or cannot be used."""


class NotReadableInputStreamException(ModelError):
    """The request body ended early or arrived too slowly."""


class RetryableException(ModelError):
    """An internal failure; a retry may succeed."""

    status = 500


class ServiceInternalException(ModelError):
    """An internal failure."""

    status = 500


class DamagedDataException(ModelError):
    """Stored bytes are damaged or lost; a retry gets the same answer. AWS has no such error.

    Its status is that of a client error, so that no SDK retries it and no load balancer removes the server.
    """

    status = 410


class ServiceUnavailableException(ModelError):
    """The server cannot serve the request now: full or failing storage, overload, shutdown. Retry later."""

    status = 503
    status_control = 500


class ResourceNotFoundException(ModelError):
    """The named resource does not exist, or no longer exists."""

    status = 404
    status_control = 400


class AccessDeniedException(ModelError):
    """The caller is authenticated, and not authorised."""

    status = 403


class ThrottlingException(ModelError):
    """Too many requests; retry with backoff."""

    status = 429
    status_control = 400


class JobStateConflictException(ModelError):
    """The state of the job rules out the request; has that state."""

    status = 409

    def __init__(self, message: str, *, state: str | None = None) -> None:
        super().__init__(message)
        self.state = state

    def members(self) -> dict[str, Any]:
        return {} if self.state is None else {"State": self.state}


class _TypedError(ModelError):
    """An AWS Backup error with the members Code, Type and Context."""

    def __init__(self, message: str, *, type: str | None = None, context: str | None = None) -> None:  # noqa: A002 - the wire name
        super().__init__(message)
        self.type = type
        self.context = context

    def members(self) -> dict[str, Any]:
        present = {"Type": self.type, "Context": self.context}
        return {name: value for name, value in present.items() if value is not None}


class InvalidParameterValueException(_TypedError):
    """A parameter's value is wrong."""


class MissingParameterValueException(_TypedError):
    """A required parameter is absent."""


class InvalidRequestException(_TypedError):
    """A well-formed request at the wrong time, or for a feature that this server lacks."""


class InvalidResourceStateException(_TypedError):
    """The resource is busy: it is being deleted or restored, or is the base of a running job."""


class LimitExceededException(_TypedError):
    """A quota is used up."""


class AlreadyExistsException(_TypedError):
    """A resource of this name exists already; has its ARN."""

    def __init__(self, message: str, *, creator_request_id: str | None = None, arn: str | None = None) -> None:
        super().__init__(message)
        self.creator_request_id = creator_request_id
        self.arn = arn

    def members(self) -> dict[str, Any]:
        present = {"CreatorRequestId": self.creator_request_id, "Arn": self.arn}
        return super().members() | {name: value for name, value in present.items() if value is not None}


class DependencyFailureException(_TypedError):
    """A dependency of the server failed."""

    status = 500


class UnknownOperationException(ModelError):
    """No operation has this method and path."""

    status = 404


class SignatureError(ModelError):
    """The caller could not be authenticated. Raised before the rest of the request is checked (A.3)."""

    status = 403


class MissingAuthenticationTokenException(SignatureError):
    """The request is not signed."""


class UnrecognizedClientException(SignatureError):
    """The access key is unknown or disabled."""


class InvalidSignatureException(SignatureError):
    """The signature, its date or its scope is wrong; the message names the part."""


class IncompleteSignatureException(SignatureError):
    """The Authorization header or query is malformed."""

    status = 400


def _subclasses(cls: type[ModelError]) -> list[type[ModelError]]:
    return [cls, *(found for direct in cls.__subclasses__() for found in _subclasses(direct))]


ERRORS: dict[str, type[ModelError]] = {cls.__name__: cls for cls in _subclasses(ModelError)}
"""Every error class by its name on the wire; clients build exceptions from it."""


def invalid_argument(signing_name: str, name: str, value: object, rule: str) -> ModelError:
    """The API's error for a wrong argument: names the argument, its value (None: not shown) and the rule."""
    shown = "" if value is None else f" {_shown(value)}"
    message = f"{name}:{shown} {rule}" if shown else f"{name} {rule}"
    wrong = IllegalArgumentException if signing_name == "backup-storage" else InvalidParameterValueException
    return wrong(message)


def missing_argument(signing_name: str, name: str) -> ModelError:
    """The API's error for an absent required argument."""
    missing = IllegalArgumentException if signing_name == "backup-storage" else MissingParameterValueException
    return missing(f"{name} is required")


def _shown(value: object) -> str:
    # Control characters are escaped, so that a hostile value cannot forge a log line or a header.
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}... ({len(text)} characters)"

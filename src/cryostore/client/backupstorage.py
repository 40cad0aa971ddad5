"""Backupstorage module: the nine operations of the Backup Storage API as plain functions.

    from cryostore import backupstorage

    upload = backupstorage.start_object(job_id, "disk.img")
    backupstorage.put_chunk(data, checksum, "SHA256", 0, job_id, len(data), upload["UploadId"])

Names, positional order and the keys of `params` are those of the API's historic client modules. Every function

- returns a dict with the member names of the API (blobs as `bytes`, absent members left out), `{}` without output;
- raises one exception class per error of the API, all subclasses of `ModelError`; `IllegalArgumentException`, without a
  request, for an unknown key of `params` or a value of a type that cannot be sent; `ConnectionFailedError` if there is
  no answer; `ConfigurationError` if there is no endpoint or no access key;
- retries its request where that can help (see `cryostore.client.retry`), and may be repeated by the caller;
- takes endpoint, region and access key from `aws_config`, and missing values from the AWS environment variables and
  shared files;
- may be called from any number of threads at once. Files are read again only when the environment changes.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

import msgspec

from cryostore.client.client import Client
from cryostore.client.settings import ENVIRONMENT, resolve
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.time import parse_timestamp
from cryostore.model.chunks import GetChunk, ListChunks, PutChunk
from cryostore.model.errors import (
    AccessDeniedException,
    DataAlreadyExistsException,
    IllegalArgumentException,
    IncompleteSignatureException,
    InvalidSignatureException,
    KMSInvalidKeyUsageException,
    MissingAuthenticationTokenException,
    ModelError,
    NotReadableInputStreamException,
    ResourceNotFoundException,
    RetryableException,
    ServiceInternalException,
    ServiceUnavailableException,
    SignatureError,
    ThrottlingException,
    UnrecognizedClientException,
)
from cryostore.model.objects import (
    DeleteObject,
    GetObjectMetadata,
    ListObjects,
    NotifyObjectComplete,
    PutObject,
    StartObject,
)
from cryostore.model.operation import Declaration, Member, Operation, Output, Timestamp, members_of
from cryostore.wire.error import UnmodelledError
from cryostore.wire.sigv4 import Credentials

Out = TypeVar("Out", bound=Output)
__all__ = [
    "AWSConfig",
    "AccessDeniedException",
    "ConfigurationError",
    "ConnectionFailedError",
    "Credentials",
    "CryostoreError",
    "DataAlreadyExistsException",
    "IllegalArgumentException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "KMSInvalidKeyUsageException",
    "MissingAuthenticationTokenException",
    "ModelError",
    "NotReadableInputStreamException",
    "ResourceNotFoundException",
    "RetryableException",
    "ServiceInternalException",
    "ServiceUnavailableException",
    "SignatureError",
    "ThrottlingException",
    "UnmodelledError",
    "UnrecognizedClientException",
    "delete_object",
    "get_chunk",
    "get_object_metadata",
    "list_chunks",
    "list_objects",
    "notify_object_complete",
    "put_chunk",
    "put_object",
    "start_object",
]

Params = Mapping[str, Any] | None
Data = bytes | bytearray | memoryview
CLIENTS_MAX = 32


def build(
    operation: type[Operation[Out]], arguments: Mapping[str, object], params: Mapping[str, Any] | None
) -> Operation[Out]:
    """Return the operation for the arguments of a function, by parameter name, and its `params`, by wire name.

    Raises IllegalArgumentException, which names the argument and the legal values, for an unknown key, a value of the
    wrong type, or `params` that are not a mapping. None in `params` means absent.
    """
    required, optional = _members(operation.declaration)
    values = {name: _value(required[name], name, value) for name, value in arguments.items()}
    if params is not None and not isinstance(params, Mapping):
        raise IllegalArgumentException(f"params must be a mapping, not {type(params).__name__}")
    for key, value in (params or {}).items():
        if key not in optional:
            legal = ", ".join(optional) or "none"
            raise IllegalArgumentException(f"params has no key {key!r} in {operation.__name__}; legal keys: {legal}")
        if value is not None:
            values[key] = _value(optional[key], key, value)
    members = required | optional
    return operation(**{members[name].attribute: value for name, value in values.items()})


def as_dict(output: Output) -> dict[str, Any]:
    """Return the members that are present, by their API names; blobs as bytes, structures as dicts."""
    values = ((member.name, getattr(output, member.attribute)) for member in members_of(type(output)))
    return {name: _builtin(value) for name, value in values if value is not None}


def parameter_name(wire_name: str) -> str:
    """Return a name such as `checksum-algorithm` or `jobId` in Python's style."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", wire_name).replace("-", "_").lower()


@functools.cache
def _members(declaration: Declaration) -> tuple[dict[str, Member], dict[str, Member]]:
    """Return the required members by parameter name, and the optional ones by key of `params`."""
    required = {parameter_name(member.wire_name): member for member in declaration.members if member.required}
    optional = {member.wire_name: member for member in declaration.members if not member.required}
    return required, optional


def _value(member: Member, name: str, value: object) -> object:
    kind = str if member.choices else member.type
    expected, convert = CONVERSIONS[kind]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        # Does not show the value: it may be data.
        raise IllegalArgumentException(f"{name} must be {expected}, not {type(value).__name__}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate cannot be sent
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError
    return operator.index(value)


def _payload(value: object) -> Payload:
    if isinstance(value, bytes | bytearray):
        return Payload(value)
    view = memoryview(value)  # type: ignore[arg-type] # raises TypeError for anything else
    return Payload(view.cast("B") if view.c_contiguous else view.tobytes())


def _timestamp(value: object) -> Timestamp:
    if isinstance(value, datetime):
        return Timestamp((value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, str):
        return Timestamp(parse_timestamp(value))
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        raise TypeError
    seconds = float(value)
    datetime.fromtimestamp(seconds, UTC)  # raises for a moment that cannot be represented
    return Timestamp(seconds)


CONVERSIONS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("a text of valid Unicode", _text),
    bool: ("True or False", _truth),
    int: ("an integer", _integer),
    Payload: ("bytes or bytes-like", _payload),
    Timestamp: ("a datetime, an ISO 8601 text or epoch seconds", _timestamp),
}


def _builtin(value: object) -> object:
    if isinstance(value, Payload):
        return value.data if isinstance(value.data, bytes) else bytes(value.data)
    return msgspec.to_builtins(value)


@dataclass(frozen=True, slots=True)
class AWSConfig:
    """Server, region and credentials of requests. Values that are None come from the environment and the shared files.

    `endpoint` is a URL such as http://127.0.0.1:9440, `profile` a section of the shared files, `ca_bundle` a file of
    certificates to trust over https. A dict with these keys is accepted as well; its `credentials` may be a dict with
    `access_key_id`, `secret_access_key` and, optionally, `session_token`.
    """

    endpoint: str | None = None
    region: str | None = None
    credentials: Credentials | None = None
    profile: str | None = None
    ca_bundle: str | None = None


Config = AWSConfig | Mapping[str, Any] | None


def delete_object(job_id: str, object_name: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """Delete an object from the incremental base backup.

    The view of the backup job `job_id` then lacks the object; the base itself does not change. `params` has no keys.
    Returns {}. Raises ResourceNotFoundException if the view of the job has no object of this name.
    """
    return _call(DeleteObject, params, aws_config, job_id=job_id, object_name=object_name)


def get_chunk(chunk_token: str, job_id: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """Get the specified object's chunk.

    `chunk_token` comes from `list_chunks` in the same storage job. `params` has no keys. Returns Data, Length, Checksum
    and ChecksumAlgorithm.
    """
    return _call(GetChunk, params, aws_config, chunk_token=chunk_token, job_id=job_id)


def get_object_metadata(
    job_id: str, object_token: str, params: Params = None, *, aws_config: Config = None
) -> dict[str, Any]:
    """Get the metadata associated with an object.

    `object_token` comes from `list_objects` in the same storage job. `params` has no keys. Returns, each only if it was
    set: MetadataString, MetadataBlob, MetadataBlobLength, MetadataBlobChecksum, MetadataBlobChecksumAlgorithm.
    """
    return _call(GetObjectMetadata, params, aws_config, job_id=job_id, object_token=object_token)


def list_chunks(job_id: str, object_token: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """List the chunks of a given object, in ascending index order.

    Keys of `params`: max-results (1 .. 100), next-token. Returns ChunkList, and NextToken unless this is the last page.
    """
    return _call(ListChunks, params, aws_config, job_id=job_id, object_token=object_token)


def list_objects(job_id: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """List all objects of a given backup, in ascending byte order of their names.

    `job_id` is a restore job, or a backup job in progress. Keys of `params`: created-after (included) and
    created-before (excluded), each a datetime, an ISO 8601 text or epoch seconds; max-results (1 .. 100); next-token;
    starting-object-name (included) and starting-object-prefix, both ignored with next-token. Returns ObjectList, and
    NextToken unless this is the last page.
    """
    return _call(ListObjects, params, aws_config, job_id=job_id)


def notify_object_complete(
    checksum: str,
    checksum_algorithm: str,
    job_id: str,
    upload_id: str,
    params: Params = None,
    *,
    aws_config: Config = None,
) -> dict[str, Any]:
    """Complete an upload: its object appears in the view of the job.

    `checksum` is SHA-256 over the raw digests of the chunks in ascending index order, `checksum_algorithm` "SUMMARY".
    Keys of `params`: MetadataBlob (at most 4 MiB), metadata-blob-length, metadata-checksum, metadata-checksum-algorithm
    ("SHA256"), metadata-string (1 .. 256 bytes). Returns ObjectChecksum and ObjectChecksumAlgorithm. Completing again
    with the same arguments returns the same.
    """
    return _call(
        NotifyObjectComplete,
        params,
        aws_config,
        checksum=checksum,
        checksum_algorithm=checksum_algorithm,
        job_id=job_id,
        upload_id=upload_id,
    )


def put_chunk(
    data: Data,
    checksum: str,
    checksum_algorithm: str,
    chunk_index: int,
    job_id: str,
    length: int,
    upload_id: str,
    params: Params = None,
    *,
    aws_config: Config = None,
) -> dict[str, Any]:
    """Upload a chunk. When this returns, the chunk is durable.

    `data` must not change until then. `checksum` is its SHA-256 as 64 hex digits or in base64, `checksum_algorithm`
    "SHA256", `length` its bytes; the server refuses other data. `params` has no keys. Returns ChunkChecksum and
    ChunkChecksumAlgorithm. Raises DataAlreadyExistsException if the upload has other data at this index.
    """
    return _call(
        PutChunk,
        params,
        aws_config,
        data=data,
        checksum=checksum,
        checksum_algorithm=checksum_algorithm,
        chunk_index=chunk_index,
        job_id=job_id,
        length=length,
        upload_id=upload_id,
    )


def put_object(job_id: str, object_name: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """Upload an object of at most one chunk, with its metadata string, in a single call. Durable when this returns.

    Keys of `params`: InlineChunk, length, checksum and checksum-algorithm ("SHA256") of it, metadata-string,
    object-checksum and object-checksum-algorithm ("SUMMARY"), throwOnDuplicate. Returns InlineChunkChecksum,
    InlineChunkChecksumAlgorithm, ObjectChecksum and ObjectChecksumAlgorithm. Raises DataAlreadyExistsException for a
    name that the job's view has already, if throwOnDuplicate is true; otherwise the object is replaced.
    """
    return _call(PutObject, params, aws_config, job_id=job_id, object_name=object_name)


def start_object(job_id: str, object_name: str, params: Params = None, *, aws_config: Config = None) -> dict[str, Any]:
    """Start an upload that contains one or many chunks.

    Key of `params`: ThrowOnDuplicate. Returns UploadId. Raises DataAlreadyExistsException for a name that the job's
    view has already, if ThrowOnDuplicate is true; otherwise the object is replaced when the upload completes.
    """
    return _call(StartObject, params, aws_config, job_id=job_id, object_name=object_name)


def _call(operation: type[Operation[Any]], params: Params, aws_config: Config, **arguments: object) -> dict[str, Any]:
    request = build(operation, arguments, params)
    environment = tuple(os.environ.get(name) for name in ENVIRONMENT)
    return as_dict(_client(_config(aws_config), environment).call(request))


def _config(given: Config) -> AWSConfig:
    if given is None:
        return AWSConfig()
    if isinstance(given, AWSConfig):
        return given
    try:
        return AWSConfig(**{**given, "credentials": _credentials(given.get("credentials"))})
    except (TypeError, AttributeError):
        legal = ", ".join(field.name for field in fields(AWSConfig))
        raise ConfigurationError(f"aws_config must be an AWSConfig or a dict with only these keys: {legal}") from None


def _credentials(given: Credentials | Mapping[str, str] | None) -> Credentials | None:
    if given is None or isinstance(given, Credentials):
        return given
    try:
        return Credentials(**given)
    except TypeError:
        raise ConfigurationError(
            "credentials must be Credentials or a dict with access_key_id, secret_access_key and session_token"
        ) from None


@functools.lru_cache(CLIENTS_MAX)
def _client(config: AWSConfig, environment: tuple[str | None, ...]) -> Client:
    environ = {name: value for name, value in zip(ENVIRONMENT, environment, strict=True) if value is not None}
    return Client.of(
        resolve(
            environ,
            endpoint_url=config.endpoint,
            region=config.region,
            credentials=config.credentials,
            profile=config.profile,
            ca_bundle=config.ca_bundle,
        )
    )

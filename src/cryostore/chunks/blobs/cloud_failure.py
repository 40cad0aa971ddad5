"""Failures of cloud requests: what each means, and whether a retry may succeed.

The library raises one exception for most failures and puts the rest into its text: the status, and the service's
answer. This is the only module that reads that text. Unknown failures count as transient, since retries are limited
anyway.
"""

from __future__ import annotations

import re
from enum import Enum

from obstore.exceptions import (
    AlreadyExistsError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)

from cryostore.core.errors import (
    BlobExistsError,
    BlobNotFoundError,
    CryostoreError,
    StorageFullError,
    StorageUnavailableError,
)

STATUS = re.compile(r"status(?: code)?: (\d{3})")
CODE = re.compile(r"<Code>(\w+)</Code>|\"code\": ?\"(\w+)\"")
ABSENT_CODES = frozenset({"NoSuchKey", "BlobNotFound"})
BUCKET_CODES = frozenset({"NoSuchBucket", "ContainerNotFound"})
FULL_CODES = frozenset({"QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage"})
TRANSIENT_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict",
     "OperationAborted", "IncompleteBody", "ServerBusy"}
)  # fmt: skip
PERMANENT = (
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
    ValueError,
)
PERMANENT_STATUSES = frozenset(range(400, 500)) - {408, 409, 425, 429}
SECRET = re.compile(r"(sig|signature|X-Amz-[A-Za-z-]+)=[^&\s\"]+", re.IGNORECASE)
WORDS_MAX = 300

CREDENTIALS_HINT = "check the credentials in the environment, their permissions, and this machine's clock"
FULL_HINT = "raise the quota, or delete recovery points and run `cryo gc`"
BUCKET_HINT = "create the bucket, or correct its name"
REGION_WORDS = "incorrectly configured region"
REGION_HINT = "add the region of the bucket to the URL: region=..."
REACH_HINT = "check that the endpoint is right and can be reached"


class FailureKind(Enum):
    """What a failure means."""

    TRANSIENT = "a retry may succeed"
    PERMANENT = "a retry will not succeed"
    FULL = "no space is left"
    EXISTS = "the key is taken"
    ABSENT = "the service says that there is no such blob"
    UNPROVEN = "an answer says that something does not exist, but not what"


class RequestFailure(Exception):  # noqa: N818 - it becomes an error only after the last retry
    """One attempt that failed. It never leaves the blob stores of this folder."""

    def __init__(self, kind: FailureKind, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    def error(self, what: str) -> CryostoreError:
        """Return the Cryostore error for this failure; `what` names the blob."""
        if self.kind is FailureKind.EXISTS:
            return BlobExistsError(f"{what} exists")
        if self.kind is FailureKind.ABSENT:
            return BlobNotFoundError(f"{what} does not exist")
        error = StorageFullError if self.kind is FailureKind.FULL else StorageUnavailableError
        return error(f"{what}: {self.message}", hint=self.hint, part="blobs")


def classify(error: Exception) -> RequestFailure:
    """Return the failure behind an exception of the library."""
    text = str(error)
    found = CODE.search(text)
    code = (found[1] or found[2]) if found else ""
    status = int(match[1]) if (match := STATUS.search(text)) else 0
    words = _words(text, status, code)
    if code in FULL_CODES or status == 507:
        return RequestFailure(FailureKind.FULL, words, hint=FULL_HINT)
    if code in BUCKET_CODES or REGION_WORDS in text:
        return RequestFailure(FailureKind.PERMANENT, words, hint=BUCKET_HINT if code else REGION_HINT)
    if isinstance(error, FileNotFoundError):
        return RequestFailure(
            FailureKind.ABSENT if code in ABSENT_CODES else FailureKind.UNPROVEN, words, hint=REACH_HINT
        )
    if isinstance(error, AlreadyExistsError | PreconditionError) and code not in TRANSIENT_CODES:
        return RequestFailure(FailureKind.EXISTS, words)
    if isinstance(error, PERMANENT) or (status in PERMANENT_STATUSES and code not in TRANSIENT_CODES):
        denied = status in {401, 403} or isinstance(error, PermissionDeniedError | UnauthenticatedError)
        return RequestFailure(FailureKind.PERMANENT, words, hint=CREDENTIALS_HINT if denied else "")
    return RequestFailure(FailureKind.TRANSIENT, words, hint="" if status else REACH_HINT)


def _words(text: str, status: int, code: str) -> str:
    """Return one line about a failure, without secrets."""
    if status or code:
        return " ".join(filter(None, ["the service answered", str(status or ""), code]))
    return SECRET.sub(r"\1=...", text.partition("\n")[0])[:WORDS_MAX]

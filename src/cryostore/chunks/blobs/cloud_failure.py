"""What the library says when a cloud refuses or fails, judged: what it means, and whether another try may fare better.

The library gives one exception for most failures and puts the rest into its text: the status, and the service's answer.
This is the only place that reads that text. What it does not know counts as passing: tries are bounded anyway.
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
PASSING_CODES = frozenset(
    {"RequestTimeout", "SlowDown", "BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict",
     "OperationAborted", "IncompleteBody", "ServerBusy"}
)  # fmt: skip
LASTING = (
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
    ValueError,
)
LASTING_STATUSES = frozenset(range(400, 500)) - {408, 409, 425, 429}
SECRET = re.compile(r"(sig|signature|X-Amz-[A-Za-z-]+)=[^&\s\"]+", re.IGNORECASE)
WORDS_MAX = 300

CREDENTIALS_HINT = "check the credentials in the environment, what they are allowed, and this machine's clock"
FULL_HINT = "raise the quota, or delete recovery points and run `cryo gc`"
BUCKET_HINT = "make the bucket, or correct its name"
REGION_WORDS = "incorrectly configured region"
REGION_HINT = "say in the URL which region the bucket is in: region=..."
REACH_HINT = "check that the endpoint is right and can be reached"


class Verdict(Enum):
    """What a failure means."""

    PASSING = "another try may fare better"
    LASTING = "another try will fare no better"
    FULL = "there is no room"
    EXISTS = "a blob has the key"
    ABSENT = "no blob has the key: the service says so itself"
    UNPROVED = "something has answered that there is no such thing, and not what"


class Refusal(Exception):  # noqa: N818 - a refusal, which becomes an error once nobody tries again
    """One try that failed. Never leaves the blob stores of this folder."""

    def __init__(self, verdict: Verdict, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.verdict = verdict
        self.message = message
        self.hint = hint

    def error(self, what: str) -> CryostoreError:
        """The error of our own tree that says the same about `what`."""
        if self.verdict is Verdict.EXISTS:
            return BlobExistsError(f"{what} exists")
        if self.verdict is Verdict.ABSENT:
            return BlobNotFoundError(f"{what} does not exist")
        kind = StorageFullError if self.verdict is Verdict.FULL else StorageUnavailableError
        return kind(f"{what}: {self.message}", hint=self.hint, part="blobs")


def judge(error: Exception) -> Refusal:
    """What the library's exception means."""
    text = str(error)
    found = CODE.search(text)
    code = (found[1] or found[2]) if found else ""
    status = int(match[1]) if (match := STATUS.search(text)) else 0
    words = _words(text, status, code)
    if code in FULL_CODES or status == 507:
        return Refusal(Verdict.FULL, words, hint=FULL_HINT)
    if code in BUCKET_CODES or REGION_WORDS in text:
        return Refusal(Verdict.LASTING, words, hint=BUCKET_HINT if code else REGION_HINT)
    if isinstance(error, FileNotFoundError):
        return Refusal(Verdict.ABSENT if code in ABSENT_CODES else Verdict.UNPROVED, words, hint=REACH_HINT)
    if isinstance(error, AlreadyExistsError | PreconditionError) and code not in PASSING_CODES:
        return Refusal(Verdict.EXISTS, words)
    if isinstance(error, LASTING) or (status in LASTING_STATUSES and code not in PASSING_CODES):
        denied = status in {401, 403} or isinstance(error, PermissionDeniedError | UnauthenticatedError)
        return Refusal(Verdict.LASTING, words, hint=CREDENTIALS_HINT if denied else "")
    return Refusal(Verdict.PASSING, words, hint="" if status else REACH_HINT)


def _words(text: str, status: int, code: str) -> str:
    """One line about it, without secrets."""
    if status or code:
        return " ".join(filter(None, ["the service answered", str(status or ""), code]))
    return SECRET.sub(r"\1=...", text.partition("\n")[0])[:WORDS_MAX]

"""Failures of cloud requests: how an exception of the library is classified."""

from __future__ import annotations

import pytest
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from cryostore.chunks.blobs.cloud_failure import FailureKind, classify
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, StorageFullError, StorageUnavailableError

SAYS = (
    "Generic S3 error: Error performing PUT https://host/bucket/key in 1ms - Server returned non-2xx status code: "
    "{status}: <Error><Code>{code}</Code><Message>words</Message></Error>"
)


def says(kind, status, code):
    return classify(kind(SAYS.format(status=status, code=code)))


@pytest.mark.parametrize(
    ("kind", "status", "code", "verdict"),
    [
        (GenericError, "503 Service Unavailable", "SlowDown", FailureKind.TRANSIENT),
        (GenericError, "500 Internal Server Error", "InternalError", FailureKind.TRANSIENT),
        (GenericError, "429 Too Many Requests", "TooManyRequests", FailureKind.TRANSIENT),
        (GenericError, "400 Bad Request", "RequestTimeout", FailureKind.TRANSIENT),
        (GenericError, "400 Bad Request", "XAmzContentSHA256Mismatch", FailureKind.TRANSIENT),
        (GenericError, "400 Bad Request", "InvalidArgument", FailureKind.PERMANENT),
        (AlreadyExistsError, "412 Precondition Failed", "PreconditionFailed", FailureKind.EXISTS),
        (AlreadyExistsError, "409 Conflict", "BlobAlreadyExists", FailureKind.EXISTS),
        (AlreadyExistsError, "409 Conflict", "ConditionalRequestConflict", FailureKind.TRANSIENT),
        (PreconditionError, "412 Precondition Failed", "PreconditionFailed", FailureKind.EXISTS),
        (PermissionDeniedError, "403 Forbidden", "SignatureDoesNotMatch", FailureKind.PERMANENT),
        (PermissionDeniedError, "403 Forbidden", "QuotaExceeded", FailureKind.FULL),
        (UnauthenticatedError, "401 Unauthorized", "", FailureKind.PERMANENT),
        (GenericError, "507 Insufficient Storage", "XMinioStorageFull", FailureKind.FULL),
        (GenericError, "507 Insufficient Storage", "", FailureKind.FULL),
        (FileNotFoundError, "404 Not Found", "NoSuchKey", FailureKind.ABSENT),
        (FileNotFoundError, "404 Not Found", "BlobNotFound", FailureKind.ABSENT),
        (FileNotFoundError, "404 Not Found", "NoSuchBucket", FailureKind.PERMANENT),
        (FileNotFoundError, "404 Not Found", "ContainerNotFound", FailureKind.PERMANENT),
        (FileNotFoundError, "404 Not Found", "", FailureKind.UNPROVEN),
    ],
)  # fmt: skip
def test_the_answer_of_the_service_decides_the_kind(kind, status, code, verdict):
    assert says(kind, status, code).kind is verdict


def test_a_failure_without_an_answer_is_transient():
    failure = classify(
        GenericError("Generic S3 error: Error performing PUT http://h/b/k - HTTP error: error sending request")
    )
    assert failure.kind is FailureKind.TRANSIENT
    assert "reached" in failure.hint


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (says(AlreadyExistsError, "412 Precondition Failed", "PreconditionFailed"), BlobExistsError),
        (says(FileNotFoundError, "404 Not Found", "NoSuchKey"), BlobNotFoundError),
        (says(FileNotFoundError, "404 Not Found", "NoSuchBucket"), StorageUnavailableError),
        (says(FileNotFoundError, "404 Not Found", ""), StorageUnavailableError),
        (says(PermissionDeniedError, "403 Forbidden", "QuotaExceeded"), StorageFullError),
        (says(GenericError, "503 Service Unavailable", "SlowDown"), StorageUnavailableError),
    ],
)
def test_errors_of_our_own_tree(verdict, kind):
    error = verdict.error("blob a/b")
    assert type(error) is kind
    assert error.message.startswith("blob a/b")


def test_words_are_one_line_without_secrets():
    text = (
        "Generic error: Error performing GET https://host/c/k?sv=1&sig=hush%2F%3D&X-Amz-Signature=hush&x=1 failed\n"
        "Debug source: hush"
    )
    message = classify(GenericError(text)).message
    assert "hush" not in message
    assert "\n" not in message
    assert says(GenericError, "503 Service Unavailable", "SlowDown").message == "the service answered 503 SlowDown"


def test_the_hint_for_a_refused_signature_names_the_credentials():
    failure = says(PermissionDeniedError, "403 Forbidden", "SignatureDoesNotMatch")
    assert "credentials" in failure.hint
    assert failure.message == "the service answered 403 SignatureDoesNotMatch"

"""Cloud services: their URLs, and the failures of their requests."""

from __future__ import annotations

import pytest
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.blobs.cloud import CloudBlobs
from cryostore.chunks.blobs.cloud_failure import FailureKind, classify
from cryostore.chunks.blobs.cloud_url import REQUEST_SECONDS_MAX, CloudUrl
from cryostore.core.errors import (
    BlobExistsError,
    BlobNotFoundError,
    ConfigurationError,
    StorageFullError,
    StorageUnavailableError,
)

COVERS = ("chunks/blobs/cloud_failure.py",)
SAYS = (
    "Generic S3 error: Error performing PUT https://host/bucket/key in 1ms - Server returned non-2xx status code: "
    "{status}: <Error><Code>{code}</Code><Message>words</Message></Error>"
)


def test_an_s3_url_has_bucket_prefix_endpoint_and_region():
    place = CloudUrl.parse("s3://bucket/a/b.c/?endpoint=https://host:8443/&region=eu-central-1&timeout=5")
    assert (place.scheme, place.bucket, place.prefix) == ("s3", "bucket", "a/b.c")
    assert (place.endpoint, place.region, place.request_seconds_max) == ("https://host:8443", "eu-central-1", 5)
    place = CloudUrl.parse("s3://bucket")
    assert (place.prefix, place.endpoint, place.request_seconds_max) == ("", "", REQUEST_SECONDS_MAX)


@pytest.mark.parametrize(
    "url",
    [
        "s3:///prefix", "s3://bucket/a//b", "s3://bucket/a b", "s3://bucket/../a", "s3://bucket#part",
        "s3://bucket?regoin=x", "s3://bucket?account=x", "s3://bucket?region=a&region=b", "s3://bucket?insecure=yes",
        "s3://bucket?timeout=soon", "s3://bucket?timeout=0", "s3://bucket?timeout=nan", "s3://bucket?timeout=1e9",
        "s3://bucket?endpoint=host", "s3://bucket?endpoint=ftp://host", "s3://bucket?endpoint=https://",
        "gs://bucket?region=x", "az://container?region=x",
    ],
)  # fmt: skip
def test_invalid_urls_are_refused(url):
    with pytest.raises(ConfigurationError):
        open_blobs(url)


@pytest.mark.parametrize(
    "url", ["s3://AKIA:hush@bucket", "s3://bucket?endpoint=https://AKIA:hush@host", "az://x:hush@y"]
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        open_blobs(url)
    assert "hush" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_plain_http_is_allowed_on_this_machine(host):
    assert CloudUrl.parse(f"s3://bucket?endpoint=http://{host}:9000").endpoint == f"http://{host}:9000"


@pytest.mark.parametrize("host", ["10.0.0.1", "minio", "localhost.example", "[fe80::1]"])
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_plain_http_to_other_machines_needs_an_option(scheme, host):
    url = f"{scheme}://bucket?endpoint=http://{host}:9000"
    with pytest.raises(ConfigurationError, match="without encryption"):
        open_blobs(url)
    assert CloudUrl.parse(f"{url}&insecure=1").endpoint == f"http://{host}:9000"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
def test_an_endpoint_from_the_environment_follows_the_same_rules(monkeypatch, name):
    monkeypatch.setenv(name, "http://minio:9000")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(ConfigurationError, match="without encryption"):
        open_blobs("s3://bucket")
    assert CloudUrl.parse("s3://bucket?insecure=1").endpoint == "http://minio:9000"
    assert CloudUrl.parse("s3://bucket?endpoint=https://other").endpoint == "https://other"


def test_the_environment_cannot_weaken_security(monkeypatch):
    for name, value in {
        "AWS_CONDITIONAL_PUT": "disabled",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ALLOW_INVALID_CERTIFICATES": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = CloudUrl.parse("s3://bucket").open()
    assert store.config["conditional_put"] == "etag"
    assert store.config["unsigned_payload"] in {False, "false"}
    assert store.client_options["allow_http"] in {False, "false"}
    assert store.client_options["allow_invalid_certificates"] in {False, "false"}
    assert store.retry_config["max_retries"] == 0


def test_the_region_of_the_url_precedes_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert CloudUrl.parse("s3://bucket?region=eu-north-1").open().config["region"] == "eu-north-1"
    assert CloudUrl.parse("s3://bucket").open().config["region"] == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    assert CloudUrl.parse("s3://bucket").open().config["region"] == "us-east-1"


def test_the_other_clouds_can_be_opened(monkeypatch):
    """Without these services the test can only show that the library accepts the options."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert isinstance(open_blobs("gs://bucket/prefix"), CloudBlobs)
    assert isinstance(open_blobs("gs://bucket?endpoint=http://127.0.0.1:4443"), CloudBlobs)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    assert isinstance(open_blobs("az://container/prefix?account=name"), CloudBlobs)
    with pytest.raises(ConfigurationError, match="az://container"):
        open_blobs("az://container/prefix")


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
def test_the_response_of_the_service_decides_the_kind(kind, status, code, verdict):
    assert says(kind, status, code).kind is verdict


def test_a_failure_without_a_response_is_transient():
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
def test_failures_become_cryostore_errors(verdict, kind):
    error = verdict.error("blob a/b")
    assert type(error) is kind
    assert error.message.startswith("blob a/b")


def test_the_message_is_one_line_without_secrets():
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

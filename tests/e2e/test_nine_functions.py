"""The nine functions and the client against a real server process: data is read back as it was written."""

from __future__ import annotations

import base64
import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore import backupstorage
from cryostore.client.pages import chunks, items, objects
from cryostore.model.errors import InvalidRequestException
from cryostore.model.jobs import (
    CommitBackupJob,
    DescribeBackupJob,
    ListBackupJobs,
    StartBackupJob,
    StopBackupJob,
)
from cryostore.model.recovery_points import DeleteRecoveryPoint, ListRecoveryPointsByBackupVault
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, ListBackupVaults

ROLE_ARN = "arn:aws:iam::000000000000:role/backup-agent"
MIB = 1024 * 1024
numbers = itertools.count()


def hex_digest(data):
    return hashlib.sha256(data).hexdigest()


def base64_digest(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def summary(*chunks_of_data):
    return hex_digest(b"".join(hashlib.sha256(data).digest() for data in chunks_of_data))


@pytest.fixture(scope="module")
def client(server):
    with server.client() as one:
        yield one


@pytest.fixture
def api(server, monkeypatch):
    """The nine functions; the environment names the server."""
    for name, value in server.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    yield backupstorage
    backupstorage._client.cache_clear()


@pytest.fixture
def resource_arn():
    return f"arn:aws:cryo:local-1:000000000000:fileset:host:resource-{next(numbers)}"


@pytest.fixture
def start_job(client, resource_arn):
    """Starts backup jobs of one resource of its own."""

    def start(base="latest"):
        operation = StartBackupJob(
            backup_vault_name="Default",
            resource_arn=resource_arn,
            iam_role_arn=ROLE_ARN,
            backup_options={"IncrementalBase": base},
        )
        return client.call(operation).backup_job_id

    return start


@pytest.fixture
def job_id(start_job):
    return start_job()


def commit(client, job_id):
    return client.call(CommitBackupJob(backup_job_id=job_id)).recovery_point_arn


def start_restore(client, arn):
    return client.call(StartRestoreJob(recovery_point_arn=arn, metadata={})).restore_job_id


def read(api, storage_job_id):
    """Every object of a storage job by name, with its bytes, through the nine functions."""
    found = {}
    params = {"max-results": 3}
    while True:
        page = api.list_objects(storage_job_id, params)
        for one in page["ObjectList"]:
            listed = api.list_chunks(storage_job_id, one["ObjectToken"])["ChunkList"]
            found[one["Name"]] = b"".join(
                api.get_chunk(chunk["ChunkToken"], storage_job_id)["Data"] for chunk in listed
            )
        if "NextToken" not in page:
            return found
        params["next-token"] = page["NextToken"]


def put(api, job_id, name, data, **params):
    given_params = {
        "InlineChunk": data,
        "length": len(data),
        "checksum": hex_digest(data),
        "checksum-algorithm": "SHA256",
    }
    return api.put_object(job_id, name, given_params | params)


@pytest.mark.parametrize("digest", [hex_digest, base64_digest])
def test_an_object_in_one_call(api, job_id, digest):
    data = b"some bytes"
    answer = put(api, job_id, "name", data, checksum=digest(data), **{"metadata-string": "größe=10"})
    assert answer["InlineChunkChecksum"] == digest(data)
    assert answer["ObjectChecksumAlgorithm"] == "SUMMARY"
    (listed,) = api.list_objects(job_id)["ObjectList"]
    assert (listed["Name"], listed["MetadataString"], listed["ChunksCount"]) == ("name", "größe=10", 1)
    (chunk,) = api.list_chunks(job_id, listed["ObjectToken"])["ChunkList"]
    assert (chunk["Index"], chunk["Length"], chunk["Checksum"]) == (0, len(data), digest(data))
    got = api.get_chunk(chunk["ChunkToken"], job_id)
    assert got == {"Data": data, "Length": len(data), "Checksum": digest(data), "ChecksumAlgorithm": "SHA256"}
    assert api.get_object_metadata(job_id, listed["ObjectToken"]) == {"MetadataString": "größe=10"}


def test_an_upload_of_sparse_chunks_with_a_metadata_blob(api, job_id):
    pieces = {0: b"first", 7: bytes(2 * MIB), 2**63 - 1: b"last"}
    upload_id = api.start_object(job_id, "disk")["UploadId"]
    for index, data in reversed(pieces.items()):
        answer = api.put_chunk(data, hex_digest(data), "SHA256", index, job_id, len(data), upload_id)
        assert answer == {"ChunkChecksum": hex_digest(data), "ChunkChecksumAlgorithm": "SHA256"}
    blob = bytes(range(256))
    params = {
        "MetadataBlob": blob,
        "metadata-blob-length": len(blob),
        "metadata-checksum": base64_digest(blob),
        "metadata-checksum-algorithm": "SHA256",
        "metadata-string": "m",
    }
    whole = summary(*pieces.values())
    completed = {"ObjectChecksum": whole, "ObjectChecksumAlgorithm": "SUMMARY"}
    assert api.notify_object_complete(whole, "SUMMARY", job_id, upload_id, params) == completed
    assert api.notify_object_complete(whole, "SUMMARY", job_id, upload_id, params) == completed, "may be repeated"
    (listed,) = api.list_objects(job_id)["ObjectList"]
    found = []
    token = None
    while token is not None or not found:
        page = api.list_chunks(job_id, listed["ObjectToken"], {"max-results": 1, "next-token": token})
        found += page["ChunkList"]
        token = page.get("NextToken")
    assert [chunk["Index"] for chunk in found] == list(pieces)
    assert [api.get_chunk(chunk["ChunkToken"], job_id)["Data"] for chunk in found] == list(pieces.values())
    assert api.get_object_metadata(job_id, listed["ObjectToken"]) == {
        "MetadataString": "m",
        "MetadataBlob": blob,
        "MetadataBlobLength": len(blob),
        "MetadataBlobChecksum": base64_digest(blob),
        "MetadataBlobChecksumAlgorithm": "SHA256",
    }


def test_two_recovery_points_and_any_order_of_deletion(api, client, start_job):
    first_job = start_job()
    first = {f"file-{number}": b"%d" % number * 100 for number in range(8)}
    for name, data in first.items():
        put(api, first_job, name, data)
    first_point = commit(client, first_job)

    second_job = start_job()
    assert read(api, second_job) == first, "the job starts as a view of its base"
    put(api, second_job, "file-3", b"changed")
    put(api, second_job, "new", b"new")
    assert api.delete_object(second_job, "file-5") == {}
    second_point = commit(client, second_job)
    second = {name: data for name, data in first.items() if name != "file-5"} | {"file-3": b"changed", "new": b"new"}

    first_restore, second_restore = start_restore(client, first_point), start_restore(client, second_point)
    assert read(api, first_restore) == first
    assert read(api, second_restore) == second
    for restore_job_id in (first_restore, second_restore):
        ended = client.call(CompleteRestoreJob(restore_job_id=restore_job_id, status="COMPLETED"))
        assert ended.status == "COMPLETED"
        with pytest.raises(api.ResourceNotFoundException):
            api.list_objects(restore_job_id)
    client.call(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=first_point))
    assert read(api, start_restore(client, second_point)) == second


NAMES = [
    "a/b",
    "/",
    "a//b/",
    "%2F",
    "%",
    "x/complete",
    "x/put-object",
    "put-object",
    "complete",
    "a b+c&d=e?f#g",
    "...",
    "ümlaut",
    "\u4e2d\u6587",
    "\U0001f9ca",
    "e\u0301",
    "\u200f\ufeff",
    "n" * 1024,
    "\U0010ffff" * 256,
]


def test_every_legal_name(api, job_id):
    for name in NAMES:
        put(api, job_id, name, name.encode())
    assert read(api, job_id) == {name: name.encode() for name in NAMES}
    assert list(read(api, job_id)) == sorted(NAMES, key=str.encode)
    for name in NAMES:
        api.delete_object(job_id, name)
    assert read(api, job_id) == {}


NAMES_OF_ANY_KIND = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@pytest.mark.parametrize("name", ["", ".", "..", "a\x00b", "a\nb", "\x7f", "n" * 1025, "\ud800"])
def test_every_illegal_name(api, job_id, name):
    for function in (api.put_object, api.start_object, api.delete_object):
        with pytest.raises(api.IllegalArgumentException):
            function(job_id, name)
    assert api.list_objects(job_id) == {"ObjectList": []}


@settings(max_examples=15)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40), st.binary(max_size=300)
    )
)
def test_every_put_object_is_read_back(server, content):
    content = {name: data for name, data in content.items() if name not in (".", "..")}
    to = {"aws_config": backupstorage.AWSConfig(server.url, "eu-1", server.settings.credentials)}
    with server.client() as client:
        start = StartBackupJob(
            backup_vault_name="Default",
            resource_arn=f"arn:aws:cryo:local-1:000000000000:fileset:host:property-{next(numbers)}",
            iam_role_arn=ROLE_ARN,
        )
        job_id = client.call(start).backup_job_id
        for name, data in content.items():
            backupstorage.put_object(job_id, name, {"InlineChunk": data}, **to)
        found = {}
        for one in objects(client, job_id):
            pieces = [
                backupstorage.get_chunk(chunk.chunk_token, job_id, **to)["Data"]
                for chunk in chunks(client, job_id, one.object_token)
            ]
            found[one.name] = b"".join(pieces)
        client.call(StopBackupJob(backup_job_id=job_id))
    assert found == content


def test_duplicates(api, job_id):
    put(api, job_id, "name", b"one")
    with pytest.raises(api.DataAlreadyExistsException) as raised:
        put(api, job_id, "name", b"two", throwOnDuplicate=True)
    assert raised.value.checksum == summary(b"one")
    with pytest.raises(api.DataAlreadyExistsException):
        api.start_object(job_id, "name", {"ThrowOnDuplicate": True})
    put(api, job_id, "name", b"two")
    upload_id = api.start_object(job_id, "name")["UploadId"]
    api.put_chunk(b"three", hex_digest(b"three"), "SHA256", 0, job_id, 5, upload_id)
    with pytest.raises(api.DataAlreadyExistsException) as raised:
        api.put_chunk(b"other", hex_digest(b"other"), "SHA256", 0, job_id, 5, upload_id)
    assert raised.value.checksum == hex_digest(b"three")
    assert read(api, job_id) == {"name": b"two"}
    api.notify_object_complete(summary(b"three"), "SUMMARY", job_id, upload_id)
    assert read(api, job_id) == {"name": b"three"}


def test_data_with_another_length_or_checksum_is_not_stored(api, job_id):
    upload_id = api.start_object(job_id, "name")["UploadId"]
    for checksum, length in ((hex_digest(b"other"), 4), (hex_digest(b"data"), 5)):
        with pytest.raises(api.IllegalArgumentException):
            api.put_chunk(b"data", checksum, "SHA256", 0, job_id, length, upload_id)
        with pytest.raises(api.IllegalArgumentException):
            api.put_object(job_id, "n", {"InlineChunk": b"data", "length": length, "checksum": checksum})
    with pytest.raises(api.IllegalArgumentException, match=summary(b"data")):
        api.notify_object_complete(summary(b"data"), "SUMMARY", job_id, upload_id)
    assert api.list_objects(job_id) == {"ObjectList": []}


def test_filters_of_lists(api, job_id):
    for name in ("a", "b/1", "b/2", "c"):
        put(api, job_id, name, b"data")

    def names(**params):
        found = api.list_objects(job_id, {name.replace("_", "-"): value for name, value in params.items()})
        return [one["Name"] for one in found["ObjectList"]]

    assert names(starting_object_name="b/2") == ["b/2", "c"]
    assert names(starting_object_prefix="b/") == ["b/1", "b/2"]
    assert names(created_after="2001-01-01T00:00:00Z", created_before=4_000_000_000) == ["a", "b/1", "b/2", "c"]
    assert names(created_before="2001-01-01") == []
    assert names(created_after=4_000_000_000.5) == []
    assert names(max_results=1) == ["a"]
    for wrong in (0, 101, -1, 2**70):
        with pytest.raises(api.IllegalArgumentException):
            names(max_results=wrong)


def test_tokens_of_another_job_are_refused(api, start_job, client):
    first = start_job("none")
    put(api, first, "name", b"data")
    (listed,) = api.list_objects(first)["ObjectList"]
    (chunk,) = api.list_chunks(first, listed["ObjectToken"])["ChunkList"]
    arn = commit(client, first)
    restore_job_id = start_restore(client, arn)
    for call in (
        lambda: api.list_chunks(restore_job_id, listed["ObjectToken"]),
        lambda: api.get_object_metadata(restore_job_id, listed["ObjectToken"]),
        lambda: api.get_chunk(chunk["ChunkToken"], restore_job_id),
        lambda: api.get_chunk("forged", restore_job_id),
        lambda: api.list_objects(restore_job_id, {"next-token": "forged"}),
    ):
        with pytest.raises(api.IllegalArgumentException):
            call()


def test_unknown_jobs_and_uploads(api, job_id):
    absent = "00000000-0000-4000-8000-000000000000"
    for call in (
        lambda: api.list_objects(absent),
        lambda: api.put_object(absent, "name"),
        lambda: api.start_object(absent, "name"),
        lambda: api.delete_object(job_id, "absent"),
        lambda: api.put_chunk(b"", hex_digest(b""), "SHA256", 0, job_id, 0, absent),
    ):
        with pytest.raises(api.ResourceNotFoundException):
            call()


def test_wrong_credentials_are_refused(server, job_id):
    stranger = {"access_key_id": "AKSTRANGER", "secret_access_key": "guess"}
    known = {"access_key_id": server.settings.credentials.access_key_id, "secret_access_key": "guess"}
    for credentials, error in (
        (stranger, backupstorage.UnrecognizedClientException),
        (known, backupstorage.InvalidSignatureException),
    ):
        with pytest.raises(error):
            backupstorage.put_object(job_id, "name", aws_config={"endpoint": server.url, "credentials": credentials})
    backupstorage._client.cache_clear()


def test_many_requests_in_flight(api, job_id, client):
    data = {f"{number:03}": number.to_bytes(2, "big") * 3000 for number in range(200)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: put(api, job_id, name, data[name]), data))
    assert [one.name for one in objects(client, job_id)] == sorted(data)
    assert read(api, job_id) == data


def test_a_repeated_start_or_commit_has_the_same_result(client, resource_arn):
    start = StartBackupJob(
        backup_vault_name="Default", resource_arn=resource_arn, iam_role_arn=ROLE_ARN, idempotency_token="token-1"
    )
    first, second = client.call(start), client.call(start)
    assert first.backup_job_id == second.backup_job_id
    backup = CommitBackupJob(backup_job_id=first.backup_job_id, outcome="FAILED", status_message="given up")
    assert client.call(backup).state == client.call(backup).state == "FAILED"


def test_control_plane_lists_through_pages(client, start_job):
    jobs = {start_job("none") for _ in range(3)}
    for job_id in jobs:
        client.call(StopBackupJob(backup_job_id=job_id))
    listed = [job.backup_job_id for job in items(client, ListBackupJobs(max_results=2, by_state="ABORTED"))]
    assert jobs <= set(listed)
    assert len(listed) == len(set(listed))
    assert client.call(DescribeBackupJob(backup_job_id=min(jobs))).state == "ABORTED"


def test_vaults(client):
    client.call(CreateBackupVault(backup_vault_name="short-lived"))
    assert {"Default", "short-lived"} <= {
        vault.backup_vault_name for vault in items(client, ListBackupVaults(max_results=1))
    }
    assert list(items(client, ListRecoveryPointsByBackupVault(backup_vault_name="short-lived"))) == []
    client.call(DeleteBackupVault(backup_vault_name="short-lived"))
    with pytest.raises(InvalidRequestException):
        client.call(DeleteBackupVault(backup_vault_name="Default"))

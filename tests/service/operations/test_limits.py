"""Every limit, lowered: the limit itself is accepted, one more is refused and leaves nothing behind (B.11)."""

from __future__ import annotations

import pytest

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model.chunks import LinkChunks, LinkedChunk, ListChunks
from cryostore.model.errors import IllegalArgumentException, InvalidParameterValueException
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import DeleteObject, ListObjects, PutObject, StartObject
from cryostore.model.restore_jobs import StartRestoreJob
from support.requests.api import hex_of
from support.stores.in_process import SMALL, opened

MIB = 1024 * 1024


def linked(index, data):
    return LinkedChunk(index=index, length=len(data), checksum=hex_of(data), checksum_algorithm="SHA256")


def test_every_limit_has_a_test_here():
    """The limits of HTTP requests are tested with the server."""
    tried = {field for field in Limits.__dataclass_fields__ if getattr(SMALL, field) != getattr(Limits(), field)}
    assert {field for field in Limits.__dataclass_fields__ if not field.startswith("request_")} == tried


def test_object_names(small):
    job = small.running_job()
    for name in ("a" * 20, "é" * 10):
        small.put(job, name, b"1")
        small.start(job, name)
        small.delete(job, name)
    for name in ("a" * 21, "é" * 10 + "a"):
        for operation in (
            PutObject(backup_job_id=job, object_name=name, inline_chunk=Payload(b"1")),
            StartObject(backup_job_id=job, object_name=name),
            DeleteObject(backup_job_id=job, object_name=name),
            ListObjects(storage_job_id=job, starting_object_name=name),
            ListObjects(storage_job_id=job, starting_object_prefix=name),
        ):
            small.refuses_and_keeps(IllegalArgumentException, operation)


def test_chunk_bytes(small):
    job = small.start_job()
    upload = small.start(job, "up")
    small.chunk(job, upload, 0, b"x" * 50)
    small.put(job, "put", b"y" * 50)
    for operation in (
        small.chunk_operation(job, upload, 1, b"x" * 51),
        small.chunk_operation(job, upload, 1, b"x" * 51, length=50),
        PutObject(backup_job_id=job, object_name="b", inline_chunk=Payload(b"x" * 51)),
        LinkChunks(backup_job_id=job, upload_id=upload, chunks=[linked(1, b"x" * 51)]),
    ):
        small.refuses_and_keeps(IllegalArgumentException, operation)
    small.complete(job, upload, [b"x" * 50])
    assert small.read(job) == {"put": b"y" * 50, "up": b"x" * 50}


def test_chunks_per_object(small):
    """The same chunk again does not count; linked ones do."""
    job = small.start_job()
    upload = small.start(job, "name")
    for index in (9, 8, 7, 6):
        small.chunk(job, upload, index, b"x")
    assert small.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=[linked(5, b"x")])).missing == []
    for operation in (
        small.chunk_operation(job, upload, 1, b"new bytes"),
        small.chunk_operation(job, upload, 1, b"x"),
        LinkChunks(backup_job_id=job, upload_id=upload, chunks=[linked(1, b"x")]),
    ):
        small.refuses_and_keeps(IllegalArgumentException, operation)
    small.chunk(job, upload, 9, b"x")
    small.complete(job, upload, [b"x"] * 5)
    assert small.read(job) == {"name": b"x" * 5}


def test_metadata(small):
    job = small.start_job()
    small.upload(job, "edge", [], metadata_string="é" * 4, blob=b"b" * 60)
    small.put(job, "put", metadata_string="é" * 8)
    upload = small.start(job, "beyond")
    for wrong in (
        small.complete_operation(job, upload, [], metadata_string="é" * 4 + "x"),
        small.complete_operation(job, upload, [], blob=b"b" * 61),
        small.complete_operation(job, upload, [], metadata_blob_length=61),
        PutObject(backup_job_id=job, object_name="x", metadata_string="é" * 8 + "x"),
    ):
        small.refuses_and_keeps(IllegalArgumentException, wrong)
    assert small.metadata(job, "edge").metadata_blob == Payload(b"b" * 60)


def test_pages(small):
    """The largest page is also the default one."""
    job = small.start_job()
    for number in range(8):
        small.put(job, str(number))
    small.upload(job, "long", [b"x"] * 5)
    assert len(small.call(ListObjects(storage_job_id=job)).object_list) == 7
    assert len(small.call(ListObjects(storage_job_id=job, max_results=7)).object_list) == 7
    small.refuses(IllegalArgumentException, ListObjects(storage_job_id=job, max_results=8))
    token = small.found(job, "long").object_token
    small.refuses(IllegalArgumentException, ListChunks(storage_job_id=job, object_token=token, max_results=8))


def test_linked_chunks(small):
    job = small.start_job()
    upload = small.start(job, "name")
    for count, accepted in ((3, True), (4, False)):
        operation = LinkChunks(
            backup_job_id=job, upload_id=upload, chunks=[linked(index, b"x") for index in range(count)]
        )
        if accepted:
            small.call(operation)
        else:
            small.refuses_and_keeps(IllegalArgumentException, operation)


@pytest.mark.parametrize(
    ("metadata", "accepted"),
    [
        ({"1": "", "2": "", "3": "", "4": ""}, True),
        ({"1": "", "2": "", "3": "", "4": "", "5": ""}, False),
        ({"é" * 10: "é" * 40}, True),
        ({"é" * 10: "é" * 40 + "x"}, False),
    ],
    ids=["4 items", "5 items", "100 bytes", "101 bytes"],
)
def test_restore_metadata(small, metadata, accepted):
    job = small.start_job()
    small.put(job, "name")
    commit = CommitBackupJob(backup_job_id=job, restore_metadata=metadata)
    if accepted:
        arn = small.call(commit).recovery_point_arn
        small.restore(arn, metadata=metadata)
        return
    small.refuses_and_keeps(IllegalArgumentException, commit)
    arn = small.commit(job)
    wrong = StartRestoreJob(recovery_point_arn=arn, metadata=metadata)
    small.refuses_and_keeps(InvalidParameterValueException, wrong)


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_invalid_unicode_is_refused(api, text):
    """A caller in process may take a name from a file system without an encoding."""
    job = api.start_job()
    api.put(job, "name", b"1")
    for operation in (
        PutObject(backup_job_id=job, object_name=text, inline_chunk=Payload(b"1")),
        PutObject(backup_job_id=job, object_name="a", metadata_string=text),
        CommitBackupJob(backup_job_id=job, restore_metadata={text: ""}),
        CommitBackupJob(backup_job_id=job, restore_metadata={"": text}),
        CommitBackupJob(backup_job_id=job, resource_name=text),
        ListObjects(storage_job_id=job, starting_object_prefix=text),
    ):
        api.refuses_and_keeps(IllegalArgumentException, operation)
    arn = api.commit(job)
    for wrong in (
        StartRestoreJob(recovery_point_arn=arn, metadata={"a": text}),
        api.start_operation(recovery_point_tags={text: ""}),
        api.start_operation(resource=f"arn:{text}"),
        api.start_operation(idempotency_token=text),
    ):
        api.refuses_and_keeps(InvalidParameterValueException, wrong)


def test_a_chunk_of_64_mib(tmp_path):
    """The default limit: 64 MiB are stored and read back, one byte more is refused."""
    data = bytes(range(256)) * (64 * MIB // 256)
    with opened(tmp_path / "data") as store:
        api = store.api()
        job = api.start_job()
        api.put(job, "put", data)
        upload = api.start(job, "up")
        api.chunk(job, upload, 2**63 - 1, data)
        api.complete(job, upload, [data])
        for operation in (
            api.chunk_operation(job, upload, 0, data + b"x"),
            PutObject(backup_job_id=job, object_name="more", inline_chunk=Payload(data + b"x")),
        ):
            api.refuses_and_keeps(IllegalArgumentException, operation)
        arn = api.commit(job)
        store.reopen()
        assert api.restored(arn) == {"put": data, "up": data}

"""Operations built from arguments and `params`, and outputs as dicts."""

from __future__ import annotations

import array
import mmap
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.client.backupstorage import as_dict, build, parameter_name
from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model.chunks import Chunk, GetChunkOutput, ListChunksOutput, PutChunk
from cryostore.model.errors import IllegalArgumentException
from cryostore.model.objects import GetObjectMetadataOutput, ListObjects, NotifyObjectComplete, PutObject, StartObject
from cryostore.model.operation import Nothing
from cryostore.wire import request as wire_request
from cryostore.wire import route

COVERS = ("client/backupstorage.py",)

CHECKSUM = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PUT = {"job_id": "JOB", "object_name": "name"}


def listed(**params):
    return build(ListObjects, {"job_id": "JOB"}, {name.replace("_", "-"): value for name, value in params.items()})


@pytest.mark.parametrize(
    ("wire_name", "expected"),
    [
        ("jobId", "job_id"),
        ("checksum-algorithm", "checksum_algorithm"),
        ("Data", "data"),
        ("chunkToken", "chunk_token"),
    ],
)
def test_parameter_names(wire_name, expected):
    assert parameter_name(wire_name) == expected


def test_every_key_of_the_seed_page_reaches_its_member():
    put = build(
        PutObject,
        PUT,
        {
            "InlineChunk": b"data",
            "checksum": CHECKSUM,
            "checksum-algorithm": "SHA256",
            "length": 4,
            "metadata-string": "m",
            "object-checksum": CHECKSUM,
            "object-checksum-algorithm": "SUMMARY",
            "throwOnDuplicate": True,
        },
    )
    assert put == PutObject(
        backup_job_id="JOB",
        object_name="name",
        metadata_string="m",
        inline_chunk=Payload(b"data"),
        inline_chunk_length=4,
        inline_chunk_checksum=CHECKSUM,
        inline_chunk_checksum_algorithm="SHA256",
        object_checksum=CHECKSUM,
        object_checksum_algorithm="SUMMARY",
        throw_on_duplicate=True,
    )
    complete = build(
        NotifyObjectComplete,
        {"checksum": CHECKSUM, "checksum_algorithm": "SUMMARY", "job_id": "JOB", "upload_id": "UP"},
        {
            "MetadataBlob": b"blob",
            "metadata-blob-length": 4,
            "metadata-checksum": CHECKSUM,
            "metadata-checksum-algorithm": "SHA256",
            "metadata-string": "m",
        },
    )
    assert complete == NotifyObjectComplete(
        backup_job_id="JOB",
        upload_id="UP",
        object_checksum=CHECKSUM,
        object_checksum_algorithm="SUMMARY",
        metadata_string="m",
        metadata_blob=Payload(b"blob"),
        metadata_blob_length=4,
        metadata_blob_checksum=CHECKSUM,
        metadata_blob_checksum_algorithm="SHA256",
    )


@given(
    st.builds(
        dict,
        **{"starting-object-name": st.text(max_size=20), "starting-object-prefix": st.text(max_size=20)},
        **{"max-results": st.integers(1, 100), "next-token": st.text(min_size=1, max_size=20)},
        **{"created-after": st.integers(0, 2**31), "created-before": st.datetimes(min_value=datetime(1990, 1, 1))},  # noqa: DTZ001 - a missing zone is UTC
    )
)
def test_built_operations_arrive_at_the_server(params):
    """From the keys of `params` to the operation, the request, and the operation that the server decodes."""
    built = build(ListObjects, {"job_id": "JOB"}, params)
    request = wire_request.encode(built)
    head = wire_request.decode_head(route.match(request.method, request.path), request, Limits())
    arrived = head.finish(Payload())
    expected = params["created-before"].replace(tzinfo=UTC).timestamp()
    assert arrived.created_before == pytest.approx(expected, abs=0.001)
    assert msgspec.structs.replace(arrived, created_before=built.created_before) == built


def test_absent_empty_and_none_params_are_the_same():
    assert (
        build(StartObject, PUT, None)
        == build(StartObject, PUT, {})
        == build(StartObject, PUT, {"ThrowOnDuplicate": None})
    )


@pytest.mark.parametrize("key", ["throwOnDuplicate", "ThrowOnDuplicates", "throw_on_duplicate", "job_id", 7])
def test_the_error_for_an_unknown_key_names_it_and_the_legal_keys(key):
    with pytest.raises(IllegalArgumentException) as raised:
        build(StartObject, PUT, {key: True})
    assert repr(key) in str(raised.value)
    assert "StartObject" in str(raised.value)
    assert "legal keys: ThrowOnDuplicate" in str(raised.value)


def test_the_error_for_an_operation_without_keys():
    with pytest.raises(IllegalArgumentException, match="legal keys: none"):
        build(PutChunk, {}, {"length": 3})


@pytest.mark.parametrize("params", ["max-results", ["max-results"], 5])
def test_params_must_be_a_mapping(params):
    with pytest.raises(IllegalArgumentException, match="params must be a mapping, not"):
        build(ListObjects, {"job_id": "JOB"}, params)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("InlineChunk", "text", "bytes or bytes-like, not str"),
        ("InlineChunk", 5, "bytes or bytes-like, not int"),
        ("InlineChunk", [1, 2], "bytes or bytes-like, not list"),
        ("length", "4", "an integer, not str"),
        ("length", 4.0, "an integer, not float"),
        ("length", True, "an integer, not bool"),
        ("throwOnDuplicate", "true", "True or False, not str"),
        ("throwOnDuplicate", 1, "True or False, not int"),
        ("checksum", b"e3b0", "a text of valid Unicode, not bytes"),
        ("metadata-string", "\ud800", "a text of valid Unicode, not str"),
        ("checksum-algorithm", 256, "a text of valid Unicode, not int"),
    ],
)
def test_the_error_for_a_wrong_type_does_not_show_the_value(key, value, expected):
    with pytest.raises(IllegalArgumentException) as raised:
        build(PutObject, PUT, {key: value})
    assert str(raised.value) == f"{key} must be {expected}"


def test_a_positional_argument_of_the_wrong_type():
    with pytest.raises(IllegalArgumentException, match="job_id must be a text of valid Unicode, not NoneType"):
        build(StartObject, {"job_id": None, "object_name": "name"}, None)


@pytest.mark.parametrize(
    "value",
    ["yesterday", "", float("nan"), float("inf"), 1e300, True, b"0", object()],
)
def test_invalid_times_are_refused(value):
    with pytest.raises(IllegalArgumentException, match="created-after must be a datetime, an ISO 8601 text or epoch"):
        listed(created_after=value)


@pytest.mark.parametrize(
    "value",
    [
        1_700_000_000,
        1_700_000_000.0,
        "1700000000",
        "2023-11-14T22:13:20Z",
        "2023-11-14 23:13:20+01:00",
        datetime(2023, 11, 14, 22, 13, 20),  # noqa: DTZ001 - a missing zone is UTC
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        datetime(2023, 11, 14, 17, 13, 20, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_every_form_of_a_time_is_accepted(value):
    assert listed(created_after=value).created_after == 1_700_000_000


def test_every_kind_of_buffer_is_accepted():
    with mmap.mmap(-1, 4) as mapped:
        mapped[:] = b"data"
        buffers = [b"data", bytearray(b"data"), memoryview(b"data"), memoryview(b"d-a-t-a-")[::2], mapped]
        for buffer in buffers:
            assert build(PutObject, PUT, {"InlineChunk": buffer}).inline_chunk == Payload(b"data"), buffer
        del buffer, buffers
    numbers = array.array("I", [1, 2])
    assert len(build(PutObject, PUT, {"InlineChunk": numbers}).inline_chunk) == 8


def test_large_data_is_not_copied():
    data = bytearray(b"data")
    assert build(PutObject, PUT, {"InlineChunk": data}).inline_chunk.data is data


def test_an_output_becomes_a_dict():
    assert as_dict(Nothing()) == {}
    chunk = Chunk(index=3, length=1, checksum=CHECKSUM, checksum_algorithm="SHA256", chunk_token="t")
    assert as_dict(ListChunksOutput(chunk_list=[chunk])) == {
        "ChunkList": [{"Index": 3, "Length": 1, "Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256", "ChunkToken": "t"}]
    }
    data = b"data"
    answer = as_dict(GetChunkOutput(data=Payload(data), length=4, checksum=CHECKSUM, checksum_algorithm="SHA256"))
    assert answer == {"Data": b"data", "Length": 4, "Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256"}
    assert answer["Data"] is data
    assert as_dict(GetObjectMetadataOutput()) == {}
    assert as_dict(GetObjectMetadataOutput(metadata_blob=Payload(bytearray(b"b")))) == {"MetadataBlob": b"b"}
    assert type(as_dict(GetObjectMetadataOutput(metadata_blob=Payload(bytearray(b"b"))))["MetadataBlob"]) is bytes

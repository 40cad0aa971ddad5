"""JSON documents: lenient decoding, with the API's own errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.core.digest import Payload
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    MissingParameterValueException,
    ModelError,
)
from cryostore.model.operation import Document
from cryostore.wire.message import Request
from cryostore.wire.request import decode_head
from cryostore.wire.route import match
from support.requests import strategies

WITH_DOCUMENT = sorted(name for name, declaration in OPERATIONS.items() if declaration.at(Document))
HEX = "ab" * 32
BACKUP = {
    "BackupVaultName": "Default",
    "ResourceArn": "arn:aws:cryo:local-1:000000000000:Stream:host:name",
    "IamRoleArn": "arn:aws:iam::000000000000:role/backup-agent",
}


def decoded(path, document, method="PUT"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = Request(method, path, "", [])
    return decode_head(match(method, path), request, Limits()).finish(Payload(body))


def test_null_and_unknown_members_are_absent():
    operation = decoded("/backup-jobs/J/object/N", {"ThrowOnDuplicate": None, "Other": [1], "throwOnDuplicate": True})
    assert operation.throw_on_duplicate is None


@pytest.mark.parametrize("value", [True, "true", "True", "TRUE", "1", 1])
def test_a_boolean_may_be_a_string(value):
    assert decoded("/backup-jobs/J/object/N", {"ThrowOnDuplicate": value}).throw_on_duplicate is True


@pytest.mark.parametrize("value", [7, "7", 7.0])
def test_an_integer_may_be_a_string(value):
    assert decoded("/backup-jobs/J/commit", {"ObjectCount": value}).object_count == 7


def test_the_last_of_two_members_of_one_name_counts():
    body = b'{"ThrowOnDuplicate":false,"ThrowOnDuplicate":true}'
    assert decoded("/backup-jobs/J/object/N", body).throw_on_duplicate is True


@pytest.mark.parametrize("body", [b"", b"{}", b"  {}\n"])
def test_an_absent_body_is_an_empty_document(body):
    assert decoded("/backup-jobs/J/object/N", body).throw_on_duplicate is None


@pytest.mark.parametrize(
    "body",
    [b"x", b"[]", b"null", b'"a"', b"{", b"{} {}", b'{"a":\xff}', b"\xff\xfe{\x00}\x00", b"[" * 9999, b'{"a":' * 9999],
)
def test_a_body_that_is_not_a_json_object_is_refused(body):
    with pytest.raises(IllegalArgumentException, match="the body must be a JSON object"):
        decoded("/backup-jobs/J/object/N", body)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Outcome": "MAYBE"}, "Outcome: 'MAYBE' must be one of COMPLETED, FAILED"),
        ({"Outcome": 5}, "Outcome: 5 must be a text"),
        ({"ObjectCount": "many"}, "ObjectCount: 'many' must be an integer"),
        ({"ObjectCount": "null"}, "ObjectCount: 'null' must be an integer"),
        ({"ObjectCount": "1e2"}, "ObjectCount: '1e2' must be an integer"),
        ({"ObjectCount": 1.5}, "ObjectCount: 1.5 must be an integer"),
        ({"ObjectCount": True}, "ObjectCount: True must be an integer"),
        ({"ObjectCount": [1]}, "ObjectCount: [1] must be"),
        ({"ObjectCount": 2**70}, "ObjectCount: 1180591620717411303424 must be between 0 and"),
        ({"ObjectCount": 10**40}, "ObjectCount: 1000"),
        ({"DiscardOpenUploads": "maybe"}, "DiscardOpenUploads: 'maybe' must be true or false"),
        ({"ResourceName": ""}, "ResourceName: '' must be 1 to 1024 bytes long"),
        ({"RestoreMetadata": []}, "RestoreMetadata must be a map of texts"),
        ({"RestoreMetadata": {"secret": 1}}, "RestoreMetadata must be a map of texts"),
        ({"StatusMessage": "\x00"}, "StatusMessage: '\\x00' must not contain control characters"),
    ],
)
def test_a_wrong_member_is_named_with_value_and_rule(document, message):
    with pytest.raises(IllegalArgumentException) as caught:
        decoded("/backup-jobs/J/commit", document)
    assert message in caught.value.message
    assert "secret" not in caught.value.message


def test_a_lone_surrogate_is_refused():
    with pytest.raises(IllegalArgumentException):
        decoded("/backup-jobs/J/commit", b'{"ResourceName":"\\ud800"}')


def test_the_members_of_a_structure_are_named_with_their_place():
    with pytest.raises(InvalidParameterValueException, match="Lifecycle.DeleteAfterDays: 0 must be between 1 and"):
        decoded("/backup-jobs", BACKUP | {"Lifecycle": {"DeleteAfterDays": 0}})
    with pytest.raises(InvalidParameterValueException, match="Lifecycle.DeleteAfterDays: 'x' must be an integer"):
        decoded("/backup-jobs", BACKUP | {"Lifecycle": {"DeleteAfterDays": "x"}})
    with pytest.raises(InvalidParameterValueException, match="Lifecycle must be a structure"):
        decoded("/backup-jobs", BACKUP | {"Lifecycle": "x"})


def test_the_members_of_a_list_are_named_with_their_index():
    chunk = {"Index": 0, "Length": 1, "Checksum": HEX, "ChecksumAlgorithm": "SHA256"}
    path = "/backup-jobs/J/chunk/U"
    with pytest.raises(IllegalArgumentException, match=r"Chunks\[1\].Checksum: 'x' a SHA-256"):
        decoded(path, {"Chunks": [chunk, chunk | {"Checksum": "x"}]})
    with pytest.raises(IllegalArgumentException, match=r"Chunks\[0\].Checksum is required"):
        decoded(path, {"Chunks": [{"Index": 0, "Length": 1}]})
    with pytest.raises(IllegalArgumentException, match=r"Chunks\[0\] must be a structure"):
        decoded(path, {"Chunks": [None]})
    with pytest.raises(IllegalArgumentException, match="Chunks: .* must be a list"):
        decoded(path, {"Chunks": {}})
    with pytest.raises(IllegalArgumentException, match="Chunks is required"):
        decoded(path, {})
    operation = decoded(path, {"Chunks": [chunk | {"Index": "5", "Extra": 1}]})
    assert operation == LinkChunks(
        backup_job_id="J",
        upload_id="U",
        chunks=[LinkedChunk(index=5, length=1, checksum=HEX, checksum_algorithm="SHA256")],
    )


def test_a_missing_member_is_named():
    with pytest.raises(MissingParameterValueException, match="ResourceArn is required"):
        decoded("/backup-jobs", BACKUP | {"ResourceArn": None})


@pytest.mark.parametrize("name", WITH_DOCUMENT)
@given(data=st.data())
@settings(max_examples=settings().max_examples // 3)
def test_any_document_is_an_operation_or_an_error_of_the_api(name, data):
    declaration = OPERATIONS[name]
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner))
    names = [member.name for member in declaration.at(Document)]
    document = data.draw(st.dictionaries(st.sampled_from(names), anything | strategies.checksums))
    path = declaration.path
    for member in declaration.members:
        path = path.replace(f"{{{member.wire_name}}}", "Vault")
    try:
        operation = decoded(path, document, declaration.method)
    except ModelError as error:
        assert error.message
    else:
        assert operation.declaration is declaration

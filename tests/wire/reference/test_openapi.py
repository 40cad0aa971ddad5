"""The OpenAPI document: complete and consistent."""

from __future__ import annotations

import json
import re

import pytest

from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS
from cryostore.wire.reference import openapi

DOCUMENT = openapi.render()
FOUND = {
    operation["operationId"]: (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def test_the_document_is_json_and_has_the_current_version():
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_operation_has_its_path_and_method():
    assert {name: (path, method) for name, (path, method, _) in FOUND.items()} == {
        name: (one.path, one.method.lower()) for name, one in OPERATIONS.items()
    }


@pytest.mark.parametrize("name", FOUND)
def test_the_path_parameters_are_those_of_the_template(name):
    path, _, operation = FOUND[name]
    declared = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert sorted(declared) == sorted(re.findall(r"{(\w+)}", path))
    assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")


@pytest.mark.parametrize("name", FOUND)
def test_every_error_of_an_operation_has_its_status(name):
    responses = FOUND[name][2]["responses"]
    for kind in OPERATIONS[name].errors:
        assert any(kind.__name__ in response.get("description", "") for response in responses.values())
    assert str(OPERATIONS[name].status) in responses
    assert "default" in responses


@pytest.mark.parametrize("name", FOUND)
def test_every_operation_may_refuse_a_signature(name):
    described = FOUND[name][2]["responses"]["403"]["description"]
    assert "InvalidSignatureException" in described.split(", ")


def test_every_reference_resolves():
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        found = DOCUMENT
        for step in reference.split("/"):
            found = found[step]


def test_every_operation_requires_a_signature():
    assert DOCUMENT["security"] == [{"signature": []}]
    assert DOCUMENT["components"]["securitySchemes"]["signature"]["name"] == "Authorization"


def test_limits_are_those_in_force():
    document = openapi.render(Limits(chunk_bytes_max=1000))
    put_chunk = document["paths"]["/backup-jobs/{jobId}/chunk/{uploadId}/{chunkIndex}"]["put"]
    (length,) = [one["schema"] for one in put_chunk["parameters"] if one["name"] == "length"]
    assert length["maximum"] == 1000


def test_lists_and_maps_have_a_limit_of_items():
    chunks = FOUND["LinkChunks"][2]["requestBody"]["content"]["application/json"]["schema"]["properties"]["Chunks"]
    assert (chunks["minItems"], chunks["maxItems"]) == (1, 1000)
    commit = FOUND["CommitBackupJob"][2]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert commit["RestoreMetadata"]["maxProperties"] == 64


def test_a_chunk_is_raw_bytes_with_headers():
    answer = FOUND["GetChunk"][2]["responses"]["200"]
    assert list(answer["content"]) == ["application/octet-stream"]
    assert set(answer["headers"]) == {"x-amz-data-length", "x-amz-checksum", "x-amz-checksum-algorithm"}

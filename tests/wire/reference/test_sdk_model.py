"""The botocore data folder: it loads, matches the published model, and restores the nine operations to boto3."""

from __future__ import annotations

import json

import botocore.exceptions
import botocore.loaders
import botocore.session
import pytest

from cryostore.model import OPERATIONS, Api
from cryostore.model.errors import ERRORS
from cryostore.wire.reference import sdk_model
from support.clients import sdk_folder

EXTENSIONS = {name for name, one in OPERATIONS.items() if one.extension}
PUBLISHED = {name for name, one in OPERATIONS.items() if one.api is Api.BACKUP_STORAGE and not one.extension}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sdk_folder.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(folder):
    return sdk_folder.session(folder).get_service_model("backupstorage")


def test_the_model_has_all_operations(model):
    assert set(model.operation_names) == PUBLISHED | EXTENSIONS


def test_without_extensions_it_is_the_model_that_aws_published(tmp_path):
    folder = sdk_folder.write(tmp_path, extensions=False)
    model = sdk_folder.session(folder).get_service_model("backupstorage")
    assert set(model.operation_names) == PUBLISHED
    assert "JobStateConflictException" not in model.shape_names


def test_the_model_is_the_same_at_every_call():
    assert sdk_model.render() == sdk_model.render()


def test_the_service_signs_under_its_own_name(model):
    assert (model.signing_name, model.service_id, model.protocol) == ("backup-storage", "BackupStorage", "rest-json")
    assert model.api_version == "2018-04-10"


def test_bodies_stream_and_are_not_signed(model):
    for name in ("PutChunk", "PutObject", "NotifyObjectComplete"):
        operation = model.operation_model(name)
        assert operation.auth_type == "v4-unsigned-body"
        assert operation.has_streaming_input
    assert model.operation_model("GetChunk").has_streaming_output
    assert model.operation_model("GetObjectMetadata").has_streaming_output


def test_every_error_has_its_status(model):
    service = json.loads(sdk_model.render()["backupstorage/2018-04-10/service-2.json"])
    for shape in model.error_shapes:
        status = ERRORS[shape.name].status
        assert shape.metadata["error"]["httpStatusCode"] == status
        assert service["shapes"][shape.name].get("fault", False) == (status >= 500)


def test_traits_are_in_the_model(model):
    commit = model.operation_model("CommitBackupJob")
    assert commit.http["responseCode"] == 202
    assert commit.input_shape.members["CommitToken"].metadata["idempotencyToken"]
    assert commit.input_shape.members["RestoreMetadata"].metadata["sensitive"]
    assert commit.input_shape.members["RestoreMetadata"].metadata["max"] == 64
    listing = model.operation_model("ListObjects").input_shape.members["MaxResults"]
    assert (listing.metadata["min"], listing.metadata["max"]) == (1, 100)


def test_everything_is_documented(model):
    for name in model.operation_names:
        operation = model.operation_model(name)
        assert operation.documentation
        for member in operation.input_shape.members.values():
            assert member.documentation, f"{name}.{member.name}"


def test_a_name_stands_for_one_shape():
    """A member whose rules differ between operations gets a shape for each."""
    service = json.loads(sdk_model.render()["backupstorage/2018-04-10/service-2.json"])
    for name in ("PutObjectInput", "NotifyObjectCompleteInput"):
        shape = service["shapes"][name]["members"]["MetadataString"]["shape"]
        assert service["shapes"][shape]["max"] == (1024 if name == "PutObjectInput" else 256)


def test_every_referenced_shape_is_defined():
    for file in sdk_model.render().values():
        service = json.loads(file)
        for name in _shapes(service.get("operations", {})) | _shapes(service.get("shapes", {})):
            assert name in service["shapes"]


def _shapes(value):
    if isinstance(value, dict):
        own = {value["shape"]} if isinstance(value.get("shape"), str) else set()
        return own.union(*(_shapes(item) for item in value.values()))
    return set().union(*(_shapes(item) for item in value)) if isinstance(value, list) else set()


def test_lists_paginate(folder):
    client = sdk_folder.client(folder)
    for name in ("list_objects", "list_chunks"):
        assert client.can_paginate(name)
    assert not client.can_paginate("get_chunk")


def test_the_data_path_of_the_environment_is_enough(folder, monkeypatch):
    monkeypatch.setenv("AWS_DATA_PATH", str(folder))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://cryo.example:9000")
    session = botocore.session.Session()
    session.set_credentials("AKIA", "SECRET")
    client = session.create_client("backupstorage", region_name="local-1")
    assert client.meta.endpoint_url == "http://cryo.example:9000"
    url = client.generate_presigned_url("get_chunk", {"StorageJobId": "J", "ChunkToken": "T"})
    assert url.startswith("http://cryo.example:9000/restore-jobs/J/chunk/T?")


def test_a_client_without_an_endpoint_gets_an_error_that_asks_for_one(folder):
    client = sdk_folder.client(folder, endpoint_url=None)
    with pytest.raises(botocore.exceptions.EndpointResolutionError, match="name its address with --endpoint-url"):
        client.list_objects(StorageJobId="J")

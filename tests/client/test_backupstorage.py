"""The nine functions: their signatures, requests, servers and errors."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryostore import backupstorage
from cryostore.core.digest import Payload
from cryostore.model import OPERATIONS
from cryostore.model.errors import ModelError
from cryostore.wire.sigv4 import Credentials
from support.faults.faulty_server import answer, fail, faulty_server

CHECKSUM = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SIGNATURES = {
    "delete_object": "job_id, object_name",
    "get_chunk": "chunk_token, job_id",
    "get_object_metadata": "job_id, object_token",
    "list_chunks": "job_id, object_token",
    "list_objects": "job_id",
    "notify_object_complete": "checksum, checksum_algorithm, job_id, upload_id",
    "put_chunk": "data, checksum, checksum_algorithm, chunk_index, job_id, length, upload_id",
    "put_object": "job_id, object_name",
    "start_object": "job_id, object_name",
}
UPLOAD_ANSWER = b'{"UploadId":"UPLOAD"}'


def config(server, **more):
    credentials = {"access_key_id": "AK", "secret_access_key": "SK"}
    return {"endpoint": server.url, "region": "eu-1", "credentials": credentials} | more


@pytest.fixture(autouse=True)
def _own_clients():
    """Each test has its own clients."""
    backupstorage._client.cache_clear()
    yield
    backupstorage._client.cache_clear()


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_of_each_function(name):
    parameters = list(inspect.signature(getattr(backupstorage, name)).parameters.values())
    *positional, params, aws_config = parameters
    assert ", ".join(one.name for one in positional) == SIGNATURES[name]
    assert all(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in positional)
    assert (params.name, params.default, params.kind) == ("params", None, params.POSITIONAL_OR_KEYWORD)
    assert (aws_config.name, aws_config.default, aws_config.kind) == ("aws_config", None, aws_config.KEYWORD_ONLY)


def test_the_module_has_the_nine_functions_only():
    functions = {name for name in backupstorage.__all__ if inspect.isfunction(getattr(backupstorage, name))}
    assert functions == set(SIGNATURES)
    assert all(inspect.getdoc(getattr(backupstorage, name)) for name in functions)


def test_the_module_has_every_error_of_the_nine_operations():
    nine = {"".join(word.capitalize() for word in name.split("_")) for name in SIGNATURES}
    for name in nine:
        for error in OPERATIONS[name].errors:
            assert getattr(backupstorage, error.__name__) is error
            assert error.__name__ in backupstorage.__all__
            assert issubclass(error, backupstorage.ModelError)


def test_every_key_of_params_is_in_the_docstring():
    for name in SIGNATURES:
        operation = OPERATIONS["".join(word.capitalize() for word in name.split("_"))]
        documented = inspect.getdoc(getattr(backupstorage, name))
        for member in operation.members:
            if not member.required:
                assert member.wire_name in documented, f"{name}: {member.wire_name}"


def test_the_request_and_result_of_each_function():
    object_answer = {"ObjectChecksum": CHECKSUM, "ObjectChecksumAlgorithm": "SUMMARY"}
    inline_answer = {"InlineChunkChecksum": CHECKSUM, "InlineChunkChecksumAlgorithm": "SHA256"} | object_answer
    listed = {"Name": "a/b", "ObjectToken": "OT", "ChunksCount": 1} | object_answer
    chunk = {"Index": 0, "Length": 4, "Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256", "ChunkToken": "CT"}
    chunk_answer = {"ChunkChecksum": CHECKSUM, "ChunkChecksumAlgorithm": "SHA256"}
    headers = {"x-amz-data-length": "4", "x-amz-checksum": CHECKSUM, "x-amz-checksum-algorithm": "SHA256"}
    answers = [
        {"UploadId": "UP"},
        chunk_answer,
        object_answer,
        inline_answer,
        {"ObjectList": [listed], "NextToken": "N"},
    ]
    steps = [answer(body=json.dumps(one).encode()) for one in [*answers, {"ChunkList": [chunk]}]]
    steps += [answer(body=b"data", **headers), answer(body=b"", **{"x-amz-metadata-string": "m"}), answer()]
    with faulty_server(*steps) as server:
        to = {"aws_config": config(server)}
        results = [
            backupstorage.start_object("JOB", "a/b", {"ThrowOnDuplicate": True}, **to),
            backupstorage.put_chunk(b"data", CHECKSUM, "SHA256", 0, "JOB", 4, "UP", **to),
            backupstorage.notify_object_complete(
                CHECKSUM, "SUMMARY", "JOB", "UP", {"MetadataBlob": b"blob", "metadata-string": "ü"}, **to
            ),
            backupstorage.put_object(
                "JOB", "a/b", {"InlineChunk": b"data", "length": 4, "throwOnDuplicate": False}, **to
            ),
            backupstorage.list_objects("JOB", {"max-results": 1, "created-after": 0}, **to),
            backupstorage.list_chunks("JOB", "OT", {"next-token": "N"}, **to),
            backupstorage.get_chunk("CT", "JOB", **to),
            backupstorage.get_object_metadata("JOB", "OT", **to),
            backupstorage.delete_object("JOB", "a/b", **to),
        ]
        sent = [(method, *_parted(path), body) for method, path, _, body in server.received]
    assert results == [
        *answers,
        {"ChunkList": [chunk]},
        {"Data": b"data", "Length": 4, "Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256"},
        {"MetadataString": "m"},
        {},
    ]
    checked = {f"checksum={CHECKSUM}", "checksum-algorithm=SHA256", "length=4"}
    completed = {f"checksum={CHECKSUM}", "checksum-algorithm=SUMMARY", "metadata-string=%C3%BC"}
    first_page = {"created-after=1970-01-01T00%3A00%3A00.000Z", "max-results=1"}
    assert sent == [
        ("PUT", "/backup-jobs/JOB/object/a%2Fb", set(), b'{"ThrowOnDuplicate":true}'),
        ("PUT", "/backup-jobs/JOB/chunk/UP/0", checked, b"data"),
        ("PUT", "/backup-jobs/JOB/object/UP/complete", completed, b"blob"),
        ("PUT", "/backup-jobs/JOB/object/a%2Fb/put-object", {"length=4", "throwOnDuplicate=false"}, b"data"),
        ("GET", "/restore-jobs/JOB/objects/list", first_page, b""),
        ("GET", "/restore-jobs/JOB/chunks/OT/list", {"next-token=N"}, b""),
        ("GET", "/restore-jobs/JOB/chunk/CT", set(), b""),
        ("GET", "/restore-jobs/JOB/object/OT/metadata", set(), b""),
        ("DELETE", "/backup-jobs/JOB/object/a%2Fb", set(), b""),
    ]


def _parted(target):
    path, _, query = target.partition("?")
    return path, set(query.split("&")) - {""}


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_function_raises_the_modelled_error(name):
    function = getattr(backupstorage, name)
    arguments = dict.fromkeys(SIGNATURES[name].split(", "), "x") | {"data": b"", "chunk_index": 0, "length": 0}
    wanted = {one: arguments[one] for one in SIGNATURES[name].split(", ")}
    with (
        faulty_server(fail(404, "ResourceNotFoundException")) as server,
        pytest.raises(backupstorage.ResourceNotFoundException, match="as scripted"),
    ):
        function(**wanted, aws_config=config(server))


def test_an_unmodelled_error():
    with (
        faulty_server(fail(418, "TeapotException")) as server,
        pytest.raises(backupstorage.UnmodelledError, match="as scripted") as raised,
    ):
        backupstorage.list_objects("JOB", aws_config=config(server))
    assert isinstance(raised.value, ModelError)


def test_text_is_refused_as_data():
    with pytest.raises(backupstorage.IllegalArgumentException, match="data must be bytes or bytes-like, not str"):
        backupstorage.put_chunk("text", CHECKSUM, "SHA256", 0, "JOB", 4, "UP")


def test_settings_from_the_environment(monkeypatch, tmp_path):
    with faulty_server(answer(body=UPLOAD_ANSWER), answer(body=UPLOAD_ANSWER)) as server:
        (tmp_path / "credentials").write_text(
            "[default]\naws_access_key_id=AKFILE\naws_secret_access_key=S\n", encoding="utf-8"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        assert backupstorage.start_object("JOB", "name") == {"UploadId": "UPLOAD"}
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S")
        backupstorage.start_object("JOB", "name", aws_config=backupstorage.AWSConfig(region="eu-9"))
        first, second = (headers["authorization"] for _, _, headers, _ in server.received)
    assert "Credential=AKFILE/" in first
    assert "/local-1/backup-storage/" in first
    assert "Credential=AKENV/" in second, "the next call uses the changed environment"
    assert "/eu-9/backup-storage/" in second


def test_calls_with_one_configuration_share_a_client_and_its_connection():
    with faulty_server(*[answer(body=UPLOAD_ANSWER)] * 3) as server:
        given = config(server)
        typed = backupstorage.AWSConfig(server.url, "eu-1", Credentials("AK", "SK"))
        for one in (given, dict(given), typed):
            backupstorage.start_object("JOB", "name", aws_config=one)
        backupstorage._client.cache_clear()
    assert server.connections == 1


def test_concurrent_calls_from_many_threads():
    barrier = threading.Barrier(8)

    def together(handler):
        barrier.wait(10)
        answer(body=UPLOAD_ANSWER)(handler)

    with faulty_server(*[together] * 16) as server, ThreadPoolExecutor(8) as pool:
        given = config(server)
        results = list(pool.map(lambda _: backupstorage.start_object("J", "n", aws_config=given), range(16)))
        backupstorage._client.cache_clear()
    assert results == [{"UploadId": "UPLOAD"}] * 16


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint_url": "http://h"},
        {"endpoint": "http://h", "credentials": {"access_key_id": "AK"}},
        {"endpoint": "http://h", "credentials": {"access_key_id": "AK", "secret_access_key": "s3cr3t", "x": 1}},
        {"endpoint": "http://h", "credentials": "s3cr3t"},
        "http://h",
        5,
    ],
)
def test_the_error_for_a_wrong_configuration_has_no_secret(wrong):
    with pytest.raises(backupstorage.ConfigurationError) as raised:
        backupstorage.list_objects("JOB", aws_config=wrong)
    assert "s3cr3t" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_a_large_chunk_arrives_unchanged():
    data = bytes(range(256)) * 16384
    digest = Payload(data).sha256.hex()
    with faulty_server(
        answer(
            body=data,
            **{"x-amz-data-length": str(len(data)), "x-amz-checksum": digest, "x-amz-checksum-algorithm": "SHA256"},
        )
    ) as server:
        assert backupstorage.get_chunk("CT", "JOB", aws_config=config(server))["Data"] == data
        backupstorage._client.cache_clear()


def test_the_package_loads_the_client_at_its_first_use():
    """`cryo --version` must not wait for the import of the client."""
    program = (
        "import sys, cryostore; cryostore.__version__; early = 'cryostore.client' in sys.modules;"
        "from cryostore import backupstorage; print(early, backupstorage.__name__, hasattr(cryostore, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "cryostore.client.backupstorage", "False"]

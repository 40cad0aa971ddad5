"""All nine operations in the exact form of AWS.jl, read back byte for byte."""

from __future__ import annotations

import base64
import json

import pytest

from cryostore.core.digest import sha256, summary
from support.clients.compatibility import commit_and_restore, start_job
from support.requests.julia import Julia, Literal

pytestmark = pytest.mark.compat
TEXT = b"plain text, as Julia strings are"
INVALID = bytes(range(0x80, 0x100)) + b' "quoted" \\ backslash'


@pytest.fixture
def julia(server):
    """AWS.jl, pointed at the server."""
    credentials = server.settings.credentials
    return Julia(server.url, credentials.access_key_id, credentials.secret_access_key)


@pytest.fixture
def job(call):
    """A backup job."""
    return start_job(call)


DATA_SHAPES = {
    "literal": (TEXT, TEXT.decode()),
    "base64": (TEXT, base64.b64encode(TEXT).decode()),
    "integers": (INVALID, list(INVALID)),
    "invalid-utf8": (INVALID, Literal(INVALID)),
    "base64-of-binary": (INVALID, base64.b64encode(INVALID).decode()),
    "text-that-looks-like-base64": (b"QUJDRA==", "QUJDRA=="),
}


@pytest.mark.parametrize("shape", DATA_SHAPES)
def test_data_as_julia_sends_it(julia, call, job, shape):
    """A blob arrives as literal text, base64, integers or raw bytes; length and checksum tell which is meant."""
    data, sent = DATA_SHAPES[shape]
    upload = julia.json("PUT", f"/backup-jobs/{job}/object/a/b/{shape}", {"ThrowOnDuplicate": "true"})["UploadId"]
    checksum = sha256(data).hex()
    stored = julia.json(
        "PUT",
        f"/backup-jobs/{job}/chunk/{upload}/0",
        {"Data": sent, "checksum": checksum, "checksum-algorithm": "SHA256", "length": str(len(data))},
    )
    assert stored["ChunkChecksum"] == checksum
    whole = summary([sha256(data)]).hex()
    done = julia.json(
        "PUT",
        f"/backup-jobs/{job}/object/{upload}/complete",
        {"checksum": whole, "checksum-algorithm": "SUMMARY", "metadata-string": "m"},
    )
    assert done["ObjectChecksum"] == whole
    restore = commit_and_restore(call, job)
    assert read_back(julia, restore) == {f"a/b/{shape}": (data, "m", b"")}


def read_back(julia, restore):
    """Everything in a restore job, through GET requests that carry their arguments in a body."""
    found = {}
    arguments = {"max-results": 1}
    while True:
        page = julia.json("GET", f"/restore-jobs/{restore}/objects/list", arguments)
        for item in page["ObjectList"]:
            found[item["Name"]] = read_object(julia, restore, item["ObjectToken"])
        if "NextToken" not in page:
            return found
        arguments = {"max-results": "1", "next-token": page["NextToken"]}


def read_object(julia, restore, token):
    """An object's data, metadata string and metadata blob."""
    listed = julia.json("GET", f"/restore-jobs/{restore}/chunks/{token}/list", {"max-results": 100})
    data = b""
    for chunk in listed["ChunkList"]:
        status, headers, body = julia("GET", f"/restore-jobs/{restore}/chunk/{chunk['ChunkToken']}")
        assert status == 200
        assert headers["x-amz-checksum"] == sha256(body).hex() == chunk["Checksum"]
        data += body
    status, headers, blob = julia("GET", f"/restore-jobs/{restore}/object/{token}/metadata")
    assert status == 200
    return data, headers.get("x-amz-metadata-string"), blob


def test_put_object_and_delete_object_with_raw_slashes(julia, call, job):
    """Object names with slashes arrive as several raw segments."""
    path = f"/backup-jobs/{job}/object/deep/in/a/tree"
    put = {"InlineChunk": TEXT.decode(), "length": len(TEXT), "checksum": sha256(TEXT).hex()}
    julia.json("PUT", f"{path}/put-object", put | {"metadata-string": "kept"})
    julia.json("PUT", f"{path}/gone/put-object", put)
    status, _, _ = julia("DELETE", f"{path}/gone")
    assert status == 200
    restore = commit_and_restore(call, job)
    assert read_back(julia, restore) == {"deep/in/a/tree": (TEXT, "kept", b"")}


def test_metadata_blob(julia, call, job):
    """NotifyObjectComplete carries its blob in the JSON body too."""
    upload = julia.json("PUT", f"/backup-jobs/{job}/object/empty")["UploadId"]
    julia.json(
        "PUT",
        f"/backup-jobs/{job}/object/{upload}/complete",
        {
            "checksum": summary([]).hex(),
            "checksum-algorithm": "SUMMARY",
            "MetadataBlob": base64.b64encode(INVALID).decode(),
            "metadata-blob-length": len(INVALID),
            "metadata-checksum": sha256(INVALID).hex(),
            "metadata-checksum-algorithm": "SHA256",
        },
    )
    restore = commit_and_restore(call, job)
    assert read_back(julia, restore) == {"empty": (b"", None, INVALID)}


def test_errors_carry_their_code_in_the_body(julia):
    """AWS.jl reads the error code from the body's Code."""
    status, headers, body = julia("GET", "/restore-jobs/none/objects/list")
    assert (status, headers["Content-Type"] if "Content-Type" in headers else headers["content-type"]) == (
        404,
        "application/json",
    )
    assert json.loads(body)["Code"] == "ResourceNotFoundException"

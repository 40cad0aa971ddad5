"""Declarations: members compiled from an annotated struct, and the validation of arguments."""

from __future__ import annotations

import msgspec
import pytest

from cryostore.core.digest import Payload, sha256
from cryostore.core.limits import Limits
from cryostore.model import OPERATIONS, Api
from cryostore.model.chunks import LinkChunks, LinkedChunk, PutChunk
from cryostore.model.errors import (
    ERRORS,
    IllegalArgumentException,
    InvalidParameterValueException,
    MissingParameterValueException,
    ModelError,
)
from cryostore.model.jobs import Lifecycle, StartBackupJob
from cryostore.model.operation import Body, Document, Label, Query

COVERS = ("model/errors.py",)


LIMITS = Limits()
CHUNK = PutChunk(
    backup_job_id="J",
    upload_id="U",
    chunk_index=0,
    data=Payload(b"x"),
    length=1,
    checksum=sha256(b"x").hex(),
    checksum_algorithm="SHA256",
)


def changed(operation, **arguments):
    """Return the same call with other arguments."""
    return msgspec.structs.replace(operation, **arguments)


def test_a_declaration_has_the_location_of_each_member():
    """Locations, wire names, API names and requirements come from the annotations."""
    declaration = PutChunk.declaration
    assert [member.wire_name for member in declaration.at(Label)] == ["jobId", "uploadId", "chunkIndex"]
    assert [member.wire_name for member in declaration.at(Query)] == ["length", "checksum", "checksum-algorithm"]
    assert declaration.at(Document) == ()
    assert declaration.body.name == "Data"
    assert isinstance(declaration.body.binding, Body)
    assert all(member.required for member in declaration.members)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_path_label_is_a_member_and_every_member_is_documented(name):
    """A path has exactly the declared labels, and each operation and input has a description."""
    declaration = OPERATIONS[name]
    labels = {part[1:-1] for part in declaration.path.split("/") if part.startswith("{")}
    assert labels == {member.wire_name for member in declaration.at(Label)}
    assert declaration.doc
    assert declaration.action.startswith(f"{declaration.api.value}:")
    assert [member.name for member in declaration.members if not member.doc] == []
    assert declaration.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_index": -1}, "ChunkIndex: -1 must be between 0 and 9223372036854775807"),
        ({"chunk_index": 2**63}, "ChunkIndex: 9223372036854775808 must be between"),
        ({"checksum": "zz"}, "Checksum: 'zz' a SHA-256 checksum is 64 hex digits"),
        ({"upload_id": ""}, "UploadId: '' must be 1 to 1024 bytes long"),
        ({"checksum_algorithm": "MD5"}, "ChecksumAlgorithm: 'MD5' must be one of SHA256"),
        ({"length": LIMITS.chunk_bytes_max + 1}, "Length: 67108865 must be between 0 and 67108864"),
    ],
)
def test_an_error_names_argument_value_and_rule(arguments, message):
    """The caller needs all three to correct the call."""
    with pytest.raises(IllegalArgumentException) as caught:
        PutChunk.declaration.check(changed(CHUNK, **arguments), LIMITS)
    assert caught.value.message.startswith(message)


def test_lowered_limits_are_enforced():
    """A limit that a rule names is read at each validation."""
    PutChunk.declaration.check(CHUNK, Limits(chunk_bytes_max=1))
    with pytest.raises(IllegalArgumentException, match="between 0 and 1"):
        PutChunk.declaration.check(changed(CHUNK, length=2), Limits(chunk_bytes_max=1))


def test_nested_structures_are_checked():
    """The error names the place within the list."""
    link = LinkChunks(
        backup_job_id="J",
        upload_id="U",
        chunks=[LinkedChunk(index=0, length=1, checksum="bad", checksum_algorithm="SHA256")],
    )
    with pytest.raises(IllegalArgumentException, match=r"Chunks\[0\]\.Checksum: 'bad'"):
        LinkChunks.declaration.check(link, LIMITS)


def test_the_control_plane_has_its_own_errors():
    """The same mistakes raise the errors of the other API."""
    start = StartBackupJob(
        backup_vault_name="Default", resource_arn="arn:aws:x", iam_role_arn="arn:aws:iam::000000000000:role/r"
    )
    StartBackupJob.declaration.check(start, LIMITS)
    with pytest.raises(InvalidParameterValueException, match="BackupVaultName"):
        StartBackupJob.declaration.check(changed(start, backup_vault_name="a b"), LIMITS)
    with pytest.raises(MissingParameterValueException, match="ResourceArn is required"):
        StartBackupJob.declaration.check(changed(start, resource_arn=None), LIMITS)
    with pytest.raises(InvalidParameterValueException, match=r"Lifecycle\.DeleteAfterDays: 0"):
        StartBackupJob.declaration.check(changed(start, lifecycle=Lifecycle(delete_after_days=0)), LIMITS)


def test_errors_do_not_show_sensitive_values():
    """An error about tags does not show them."""
    start = StartBackupJob(
        backup_vault_name="Default",
        resource_arn="arn:aws:x",
        iam_role_arn="arn:aws:iam::000000000000:role/r",
        recovery_point_tags={f"secret{number}": "secret" for number in range(51)},
    )
    with pytest.raises(InvalidParameterValueException) as caught:
        StartBackupJob.declaration.check(start, LIMITS)
    assert "secret" not in caught.value.message


def test_hostile_values_cannot_forge_a_line():
    """Control characters and very long values appear escaped and cut."""
    with pytest.raises(IllegalArgumentException) as caught:
        PutChunk.declaration.check(changed(CHUNK, checksum="a\r\nb" + "x" * 500), LIMITS)
    assert "\n" not in caught.value.message
    assert "\\r\\n" in caught.value.message
    assert len(caught.value.message) < 300


def test_apis_and_errors_are_complete():
    """Nine published operations of Backup Storage, and an exception class for every error name."""
    published = [one for one in OPERATIONS.values() if one.api is Api.BACKUP_STORAGE and not one.extension]
    assert len(published) == 9
    assert all(issubclass(found, ModelError) and found.__name__ == name for name, found in ERRORS.items())

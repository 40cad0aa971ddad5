"""Routes: one operation for each raw path, with any object name."""

from __future__ import annotations

import re

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.model import OPERATIONS
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    InvalidRequestException,
    ModelError,
    UnknownOperationException,
)
from cryostore.model.operation import members_of
from cryostore.wire import scalar
from cryostore.wire.request import encode
from cryostore.wire.route import match
from support.requests import strategies

BACKUP_ONLY_ELSEWHERE = [
    ("GET", "/account-settings"),
    ("GET", "/global-settings"),
    ("GET", "/audit/frameworks"),
    ("PUT", "/logically-air-gapped-backup-vaults/v"),
    ("PUT", "/restore-access-backup-vaults"),
    ("PUT", "/backup-vaults/v/mpaApprovalTeam"),
    ("PUT", "/tiering-configurations"),
    ("PUT", "/scan/job"),
    ("GET", "/indexes/recovery-point/"),
    ("GET", "/backup/template/plans"),
    ("GET", "/backup-access-point"),
    ("PATCH", "/backup-jobs/J"),
    ("GET", "/restore-jobs/J/no-such-thing"),
]


@given(strategies.operations())
def test_the_path_of_every_operation_routes_back_to_it(operation):
    request = encode(operation)
    route = match(request.method, request.path)
    assert route.declaration is operation.declaration
    assert route.labels == {
        member.wire_name: str(getattr(operation, member.attribute))
        for member in operation.declaration.members
        if f"{{{member.wire_name}}}" in operation.declaration.path
    }


@pytest.mark.parametrize(
    ("method", "path", "name", "labels"),
    [
        ("PUT", "/backup-jobs/J/object/x", "StartObject", ["J", "x"]),
        ("PUT", "/backup-jobs/J/object/x%2Fcomplete", "StartObject", ["J", "x/complete"]),
        ("PUT", "/backup-jobs/J/object/x%2Fput-object", "StartObject", ["J", "x/put-object"]),
        ("PUT", "/backup-jobs/J/object/complete", "StartObject", ["J", "complete"]),
        ("PUT", "/backup-jobs/J/object/put-object/put-object", "PutObject", ["J", "put-object"]),
        ("PUT", "/backup-jobs/J/object/complete/complete", "NotifyObjectComplete", ["J", "complete"]),
        ("DELETE", "/backup-jobs/J/object/x%2Fcomplete", "DeleteObject", ["J", "x/complete"]),
        ("PUT", "/backup-jobs/J/object/a%2F..%2Fb", "StartObject", ["J", "a/../b"]),
        ("PUT", "/backup-jobs/J/object/a+b%2Bc", "StartObject", ["J", "a+b+c"]),
        ("PUT", "/backup-jobs/J/object/%E2%82%AC", "StartObject", ["J", "€"]),
        ("PUT", "/backup-jobs/J/object/%2e%2E%2e", "StartObject", ["J", "..."]),
        ("GET", "/restore-jobs/objects/objects/list", "ListObjects", ["objects"]),
        ("PUT", "/restore-jobs/J/complete", "CompleteRestoreJob", ["J"]),
        ("PUT", "/backup-jobs/J/chunk/U", "LinkChunks", ["J", "U"]),
    ],
)
def test_a_segment_is_decoded_after_the_split(method, path, name, labels):
    route = match(method, path)
    assert (route.declaration.name, list(route.labels.values())) == (name, labels)


@pytest.mark.parametrize(
    ("method", "path", "name", "object_name"),
    [
        ("PUT", "/backup-jobs/J/object/a/b", "StartObject", "a/b"),
        ("PUT", "/backup-jobs/J/object/a/b/put-object", "PutObject", "a/b"),
        ("PUT", "/backup-jobs/J/object/a/put-object/b", "StartObject", "a/put-object/b"),
        ("PUT", "/backup-jobs/J/object/a/b/complete", "StartObject", "a/b/complete"),
        ("PUT", "/backup-jobs/J/object/a%20b/c%2Fd", "StartObject", "a b/c/d"),
        ("PUT", "/backup-jobs/J/object//a", "StartObject", "/a"),
        ("PUT", "/backup-jobs/J/object/a/", "StartObject", "a/"),
        ("PUT", "/backup-jobs/J/object/a//put-object", "PutObject", "a/"),
        ("DELETE", "/backup-jobs/J/object/a/b", "DeleteObject", "a/b"),
        ("DELETE", "/backup-jobs/J/object/a/put-object", "DeleteObject", "a/put-object"),
        ("DELETE", "/backup-jobs/J/object/a/b/complete", "DeleteObject", "a/b/complete"),
        ("PUT", "/backup-jobs/J/object/\xc3\xa9/b", "StartObject", "é/b"),
    ],
)
def test_an_object_name_may_hold_raw_slashes(method, path, name, object_name):
    """AWS.jl does not encode path labels (Backup Storage A.5)."""
    route = match(method, path)
    assert (route.declaration.name, route.labels) == (name, {"jobId": "J", "objectName": object_name})


@pytest.mark.parametrize("path", ["/backup-jobs", "/backup-jobs/"])
def test_a_trailing_slash_of_the_control_plane_is_optional(path):
    assert match("GET", path).declaration.name == "ListBackupJobs"
    assert match("PUT", path).declaration.name == "StartBackupJob"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_trailing_slash_changes_no_label_of_the_control_plane(method):
    assert match(method, "/backup-vaults/v/").labels == {"backupVaultName": "v"}


def test_an_empty_chunk_index_does_not_select_another_operation():
    """A PutChunk that lost its index must not become a LinkChunks."""
    assert match("PUT", "/backup-jobs/J/chunk/U/").labels["chunkIndex"] == ""


@pytest.mark.parametrize(
    "path",
    [
        "/backup-jobs/J/object/..",
        "/backup-jobs/J/object/.",
        "/backup-jobs/J/object/%2E%2e",
        "/backup-jobs/J/object/a/../b",
        "/backup-jobs/J/object/a/%2e/b",
        "/backup-jobs/../object/x",
        "/backup-jobs/J/object/../put-object",
    ],
)
def test_dot_segments_are_refused(path):
    with pytest.raises(IllegalArgumentException, match="must not be '.' or '..'"):
        match("PUT", path)


def test_dot_segments_of_the_control_plane_are_refused_with_its_errors():
    with pytest.raises(InvalidParameterValueException, match="BackupJobId: '..' must not be"):
        match("GET", "/backup-jobs/..")


@pytest.mark.parametrize(
    ("segment", "rule"),
    [
        ("%", "'%' is followed by two hex digits"),
        ("a%2", "'%' is followed by two hex digits"),
        ("%zz", "'%' is followed by two hex digits"),
        ("%ff", "must be valid UTF-8"),
        ("%ED%A0%80", "must be valid UTF-8"),
        ("\xff", "must be valid UTF-8"),
    ],
)
def test_a_label_that_cannot_be_decoded_is_refused_by_name(segment, rule):
    with pytest.raises(IllegalArgumentException) as caught:
        match("PUT", f"/backup-jobs/J/object/{segment}")
    assert caught.value.message.startswith("ObjectName: ")
    assert rule in caught.value.message


@pytest.mark.parametrize(("method", "path"), BACKUP_ONLY_ELSEWHERE)
def test_a_path_of_aws_backup_that_is_not_served_is_refused_as_such(method, path):
    with pytest.raises(InvalidRequestException, match="not supported by this server"):
        match(method, path)


@pytest.mark.parametrize("path", ["/", "", "*", "//", "/healthz", "/Backup-jobs/J", "/%62ackup-jobs", "backup-jobs"])
def test_any_other_path_is_an_unknown_operation(path):
    with pytest.raises(UnknownOperationException):
        match("GET", path)


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "OPTIONS", "put", ""]),
    st.text(st.sampled_from("abJ./%2eEfF+ \x00\xc3\xa9\n") | st.characters(max_codepoint=255), max_size=60)
    | st.lists(st.sampled_from(["backup-jobs", "restore-jobs", "J", "object", "a", "", "..", "%2e", "chunk", "list"]))
    .map("/".join)
    .map("/{}".format),
)
def test_any_path_has_a_route_or_an_error_of_the_api(method, path):
    try:
        route = match(method, path)
    except ModelError as error:
        assert str(error).isprintable()
    else:
        assert not {".", ".."} & set(route.labels.values())


@given(st.text(strategies.characters, min_size=1, max_size=30))
def test_no_object_name_changes_the_operation(name):
    if name in (".", ".."):
        return
    for method, operation, end in (
        ("PUT", "StartObject", ""),
        ("DELETE", "DeleteObject", ""),
        ("PUT", "PutObject", "/put-object"),
    ):
        route = match(method, f"/backup-jobs/J/object/{scalar.percent_encode(name)}{end}")
        assert (route.declaration.name, route.labels["objectName"]) == (operation, name)


def test_no_two_operations_share_a_method_and_path():
    paths = [(one.method, one.path.rstrip("/")) for one in OPERATIONS.values()]
    assert len({(method, _shape(path)) for method, path in paths}) == len(paths)


def _shape(path):
    return tuple("{}" if segment.startswith("{") else segment for segment in path.split("/"))


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("PUT", "/backup/plans/", "CreateBackupPlan"),
        ("GET", "/backup/plans/p/versions/", "ListBackupPlanVersions"),
        ("POST", "/tags/arn%3Aaws%3Abackup%3Ax", "TagResource"),
        ("PUT", "/backup-vaults/v/vault-lock", "PutBackupVaultLockConfiguration"),
        ("GET", "/indexes/recovery-point/", "ListIndexedRecoveryPoints"),
        ("PATCH", "/backup/plans/", "this method and path"),
    ],
)
def test_an_operation_that_is_not_served_is_refused_by_name(method, path, name):
    with pytest.raises(InvalidRequestException, match=f"^{name}: not supported by this server"):
        match(method, path)


def test_every_operation_of_the_newest_sdk_is_served_or_named():
    model = botocore.session.get_session().get_service_model("backup")
    for name in model.operation_names:
        operation = model.operation_model(name)
        path = re.sub(r"\{[^}]*\}", "x", operation.http["requestUri"].partition("?")[0])
        try:
            assert match(operation.http["method"], path).declaration.name == name
        except InvalidRequestException as refusal:
            assert refusal.message.startswith(f"{name}: "), name


def test_every_argument_of_the_newest_sdk_is_known_where_the_operation_is_served():
    model = botocore.session.get_session().get_service_model("backup")
    for name in set(model.operation_names) & set(OPERATIONS):
        shape = model.operation_model(name).input_shape
        members = {member.name: member for member in OPERATIONS[name].members}
        assert set(shape.members if shape else ()) <= set(members), name
        for key, member in shape.members.items() if shape else ():
            if members[key].shape is not None:
                assert set(member.members) <= {one.name for one in members_of(members[key].shape)}, key
            if getattr(member, "enum", None) and members[key].choices:
                assert set(member.enum) <= set(members[key].choices), key

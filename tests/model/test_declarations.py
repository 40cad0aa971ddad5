"""Declarations of operations, compared with the published models of both APIs.

Backup Storage has a table beside this file, because no current SDK has the model. AWS Backup has the model in the
installed botocore. Every member that is left out is listed here, so that leaving one out is a decision.
"""

from __future__ import annotations

import json
from pathlib import Path

import botocore.session
import pytest

from cryostore.core.digest import Payload
from cryostore.model import OPERATIONS, Api
from cryostore.model.errors import ERRORS
from cryostore.model.operation import Timestamp, members_of
from cryostore.wire import error
from cryostore.wire.reference.sdk_model import LOCATIONS

FACTS = json.loads((Path(__file__).parent / "backupstorage-2018-04-10.json").read_text())
TYPES = {
    int: {"long", "integer"},
    bool: {"boolean"},
    str: {"string"},
    Payload: {"blob"},
    Timestamp: {"timestamp"},
    dict[str, str]: {"map"},
}

NARROWED = {("PutObject", "InlineChunkChecksumAlgorithm"): "string"}
"""Members that are declared as an enumeration, while the published model allows any text: one value is accepted."""

MEMBERS_LEFT_OUT = {
    "DescribeBackupVault": {
        *("LatestMpaApprovalTeamUpdate", "MpaApprovalTeamArn", "MpaSessionArn"),  # multi-party approval
        "SourceBackupVaultArn",  # of vaults shared between accounts
    },
    "DescribeBackupJob": {
        "CreatedBy",  # plans
        *("ChildJobsInState", "NumberOfChildJobs", "ParentJobId"),  # composite backups
    },
    "BackupJob": {"CreatedBy", "ParentJobId"},
    "DescribeRecoveryPoint": {
        "CreatedBy",
        *("CompositeMemberIdentifier", "ParentRecoveryPointArn"),
        *("IndexStatus", "IndexStatusMessage"),  # the search API
        "ScanResults",  # malware scans
    },
    "RecoveryPointByBackupVault": {
        "CreatedBy",
        *("CompositeMemberIdentifier", "ParentRecoveryPointArn"),
        *("IndexStatus", "IndexStatusMessage"),
        "AggregatedScanResult",
    },
    "DescribeRestoreJob": {
        *("CreatedBy", "ParentJobId"),
        *("DeletionStatus", "DeletionStatusMessage", "ValidationStatus", "ValidationStatusMessage"),  # restore testing
        "ExpectedCompletionTimeMinutes",
    },
    "RestoreJobsListMember": {
        *("CreatedBy", "ParentJobId"),
        *("DeletionStatus", "DeletionStatusMessage", "ValidationStatus", "ValidationStatusMessage"),
        "ExpectedCompletionTimeMinutes",
    },
}
ERRORS_LEFT_OUT = {
    "DescribeBackupJob": {"DependencyFailureException"},
    "DescribeRestoreJob": {"DependencyFailureException"},
}


def published():
    return [
        pytest.param(one, id=one.name)
        for one in OPERATIONS.values()
        if one.api is Api.BACKUP_STORAGE and not one.extension
    ]


def described(members):
    """Return the declared members in the terms of the table."""
    return {
        member.name: [
            LOCATIONS[type(member.binding)] or "document",
            member.wire_name,
            _kind(member),
            "required" if member.required else "optional",
        ]
        for member in members
    }


def _kind(member):
    if member.choices:
        return " ".join(["enum", *member.choices])
    if member.shape:
        return f"list of {member.shape.__name__}"
    return min(TYPES[member.type] - {"integer"})


def widened(members):
    """Return the members of the table, with one term for both kinds of integer."""
    return {
        name: [place, called, kind.replace("integer", "long"), need]
        for name, (place, called, kind, need) in members.items()
    }


def test_the_nine_operations_are_published():
    assert sorted(FACTS["operations"]) == sorted(one.values[0].name for one in published())


@pytest.mark.parametrize("declaration", published())
def test_an_operation_is_as_published(declaration):
    facts = FACTS["operations"][declaration.name]
    assert facts["request"] == f"{declaration.method} {declaration.path}"
    assert facts["payload"] == ("unsigned" if declaration.unsigned_payload else "signed")
    members = widened(facts["input"])
    for name in members:
        if (kind := NARROWED.get((declaration.name, name))) is not None:
            assert members[name][2] == kind
            members[name][2] = "enum SHA256"
    assert members == described(declaration.members)
    assert widened(facts["output"]) == described(declaration.output_members)
    assert facts["errors"] == sorted(kind.__name__ for kind in declaration.errors)
    assert declaration.status == 200


@pytest.mark.parametrize("name", FACTS["shapes"])
def test_a_shape_in_a_list_is_as_published(name):
    shapes = {
        member.shape.__name__: member.shape
        for one in OPERATIONS.values()
        for member in one.output_members
        if one.api is Api.BACKUP_STORAGE and member.shape
    }
    assert widened(FACTS["shapes"][name]) == described(members_of(shapes[name]))


@pytest.mark.parametrize("name", FACTS["errors"])
def test_an_error_is_as_published(name):
    status, *members = FACTS["errors"][name]
    assert (ERRORS[name].status, sorted(["Message", *error.member_names(ERRORS[name])])) == (status, members)


BACKUP = botocore.session.Session().get_service_model("backup")
SERVED = [pytest.param(one, id=one.name) for one in OPERATIONS.values() if one.api is Api.BACKUP]


@pytest.mark.parametrize("declaration", SERVED)
def test_an_operation_of_aws_backup_is_as_in_its_model(declaration):
    theirs = BACKUP.operation_model(declaration.name)
    assert theirs.http["method"] == declaration.method
    assert theirs.http["requestUri"] == declaration.path
    assert theirs.http.get("responseCode", 200) == declaration.status
    left_out = ERRORS_LEFT_OUT.get(declaration.name, set())
    assert {shape.name for shape in theirs.error_shapes} - left_out == {kind.__name__ for kind in declaration.errors}


@pytest.mark.parametrize("declaration", SERVED)
def test_every_member_of_an_input_of_aws_backup_is_declared(declaration):
    shape = BACKUP.operation_model(declaration.name).input_shape
    compare(shape, declaration.members, required=True)
    tokens = {name for name, member in shape.members.items() if member.metadata.get("idempotencyToken")}
    assert tokens == {member.name for member in declaration.members if member.idempotency_token}


@pytest.mark.parametrize("declaration", SERVED)
def test_every_member_of_an_output_of_aws_backup_is_declared_or_left_out_on_purpose(declaration):
    shape = BACKUP.operation_model(declaration.name).output_shape
    if shape is None:
        assert declaration.output_members == ()
    else:
        compare(shape, declaration.output_members, left_out=MEMBERS_LEFT_OUT.get(declaration.name, set()))


def compare(shape, members, *, required=False, left_out=frozenset()):
    ours = {member.name: member for member in members}
    assert set(shape.members) == set(ours) | set(left_out)
    if required:
        assert sorted(shape.required_members) == sorted(name for name, member in ours.items() if member.required)
    for name, member in ours.items():
        theirs = shape.members[name]
        location = theirs.serialization.get("location", "")
        assert location == LOCATIONS[type(member.binding)]
        if location:
            assert theirs.serialization["name"] == member.wire_name
        compare_type(theirs, member, required=required)


def compare_type(theirs, member, *, required):
    item = theirs.member if theirs.type_name == "list" else theirs
    if member.shape:
        left_out = MEMBERS_LEFT_OUT.get(member.shape.__name__, set())
        assert item.type_name == "structure"
        compare(item, members_of(member.shape), required=required, left_out=left_out)
    elif member.choices:
        assert set(member.choices) <= set(theirs.enum)
    else:
        assert theirs.type_name in TYPES[member.type]

"""ARNs of vaults and recovery points, and the types of resources."""

from __future__ import annotations

import pytest

from cryostore.service.arns import Arns, resource_type
from cryostore.service.settings import Settings

ARNS = Arns(Settings(account_id="123456789012", region="eu-central-1"))


def test_arns_name_account_and_region():
    assert ARNS.vault("Default") == "arn:aws:backup:eu-central-1:123456789012:backup-vault:Default"
    assert ARNS.point("ABC") == "arn:aws:backup:eu-central-1:123456789012:recovery-point:ABC"


def test_a_recovery_point_is_found_by_its_arn_alone():
    assert ARNS.point_id(ARNS.point("abc")) == "ABC"
    assert ARNS.point_id(Arns(Settings()).point("ABC")) is None
    assert ARNS.point_id(ARNS.vault("ABC")) is None


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:cryo:cryo:::fileset:host/root", "FileSet"),
        ("arn:cryo:cryo:::DISK:host", "Disk"),
        ("arn:cryo:cryo:::other:host", "Generic"),
        ("arn:aws:ec2:eu-central-1:1:volume/vol-1", "EBS"),
        ("arn:aws:ec2:eu-central-1:1:instance/i-1", "EC2"),
        ("arn:aws:ec2:eu-central-1:1:snapshot/s-1", "Generic"),
        ("arn:aws:s3:::bucket", "S3"),
        ("arn:aws", "Generic"),
    ],
)
def test_the_type_of_a_resource_follows_from_its_arn(arn, expected):
    assert resource_type(arn) == expected

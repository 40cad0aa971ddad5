"""Conformance tests of the operations on recovery points (control plane 2.3, 2.5; Backup Storage B.1)."""

from __future__ import annotations

import itertools

import pytest

from cryostore.model.errors import (
    InvalidParameterValueException,
    InvalidRequestException,
    InvalidResourceStateException,
    ResourceNotFoundException,
)
from cryostore.model.recovery_points import (
    DeleteRecoveryPoint,
    DescribeRecoveryPoint,
    ListRecoveryPointsByBackupVault,
)
from cryostore.model.restore_jobs import StartRestoreJob
from support.requests.api import new_resource


class RecoveryPointTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    def delete_operation(self, api, arn):
        return DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn)

    def test_a_deleted_point_does_not_exist(self, api):
        arn = api.backup({"a": b"1"})
        api.delete_point(arn)
        for operation in (
            DescribeRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn),
            self.delete_operation(api, arn),
            StartRestoreJob(recovery_point_arn=arn, metadata={}),
        ):
            api.refuses_and_keeps(ResourceNotFoundException, operation)
        assert api.names(api.start_job()) == [], "it is no base either"

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
    def test_points_are_deleted_in_any_order_and_the_others_stay_complete(self, api, order):
        """The others are compared byte for byte. The newest remaining point is the base of the next backup."""
        contents = [
            {"kept": b"0", "changed": b"0", "gone": b"0"},
            {"kept": b"0", "changed": b"1", "new": b"1"},
            {"kept": b"0", "changed": b"2", "gone": b"2", "new": b"1"},
            {"kept": b"0", "changed": b"2", "new": b"3"},
        ]
        points = [
            api.backup(contents[0]),
            api.backup({"changed": b"1", "gone": None, "new": b"1"}),
            api.backup({"changed": b"2", "gone": b"2"}),
            api.backup({"gone": None, "new": b"3"}),
        ]
        left = set(range(4))
        for number in order:
            api.delete_point(points[number])
            left.remove(number)
            for other in left:
                assert api.restored(points[other]) == contents[other]
            job = api.start_job()
            assert api.read(job) == (contents[max(left)] if left else {})
            api.stop(job)

    @pytest.mark.parametrize("first", ["trunk", "base", "branch"])
    def test_points_of_branches_are_deleted_in_any_order(self, api, first):
        base = api.backup({"a": b"1", "b": b"1", "c": b"1"})
        trunk = api.backup({"a": b"2", "b": None})
        branch = api.backup({"a": None, "d": b"3"}, backup_options={"IncrementalBase": base.rpartition(":")[2]})
        points = {"base": base, "trunk": trunk, "branch": branch}
        contents = {
            "base": {"a": b"1", "b": b"1", "c": b"1"},
            "trunk": {"a": b"2", "c": b"1"},
            "branch": {"b": b"1", "c": b"1", "d": b"3"},
        }
        for name in [first, *sorted(points.keys() - {first})]:
            api.delete_point(points.pop(name))
            for other, arn in points.items():
                assert api.restored(arn) == contents[other]
        assert api.restored(api.backup({"e": b"1"})) == {"e": b"1"}

    def test_the_base_of_a_running_job_cannot_be_deleted(self, api):
        arn = api.backup({"a": b"1"})
        job = api.running_job()
        api.refuses_and_keeps(InvalidResourceStateException, self.delete_operation(api, arn))
        api.stop(job)
        api.delete_point(arn)

    def test_the_base_of_committed_points_can_be_deleted(self, api):
        first = api.backup({"a": b"1", "b": b"1"})
        second = api.backup({"a": b"2"})
        api.delete_point(first)
        assert api.restored(second) == {"a": b"2", "b": b"1"}

    def test_a_waiting_job_does_not_hold_its_later_base(self, api):
        arn = api.backup({"a": b"1"})
        job = api.start_job()
        api.delete_point(arn)
        assert api.names(job) == []

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "ABORTED"])
    def test_a_point_that_is_being_restored_cannot_be_deleted(self, api, status):
        arn = api.backup({"a": b"1"})
        first, second = api.restore(arn), api.restore(arn)
        api.read(first)
        for job in (first, second):
            api.refuses_and_keeps(InvalidResourceStateException, self.delete_operation(api, arn))
            api.end_restore(job, status)
        api.delete_point(arn)

    def test_a_point_that_is_being_created_cannot_be_deleted(self, api):
        started = api.call(api.start_operation())
        api.refuses_and_keeps(InvalidRequestException, self.delete_operation(api, started.recovery_point_arn))
        restore = StartRestoreJob(recovery_point_arn=started.recovery_point_arn, metadata={})
        api.refuses_and_keeps(InvalidRequestException, restore)

    def test_unknown_points(self, api):
        arn = api.backup({"a": b"1"})
        wrong_arns = (arn[:-1], arn + "0", "x", arn.replace("local-1", "other-1"), arn.rpartition(":")[0] + ":")
        for wrong in wrong_arns:
            for operation in (DescribeRecoveryPoint, DeleteRecoveryPoint):
                api.refuses_and_keeps(
                    ResourceNotFoundException, operation(backup_vault_name=api.vault, recovery_point_arn=wrong)
                )
        for vault in ("no-such-vault", api.new_vault()):
            for operation in (DescribeRecoveryPoint, DeleteRecoveryPoint):
                api.refuses_and_keeps(
                    ResourceNotFoundException, operation(backup_vault_name=vault, recovery_point_arn=arn)
                )

    def test_only_this_account_is_known(self, api):
        arn = api.backup({"a": b"1"})
        describe = DescribeRecoveryPoint(
            backup_vault_name=api.vault, recovery_point_arn=arn, backup_vault_account_id="000000000000"
        )
        assert api.call(describe).status == "COMPLETED"
        for account in ("111111111111", "x"):
            wrong = DescribeRecoveryPoint(
                backup_vault_name=api.vault, recovery_point_arn=arn, backup_vault_account_id=account
            )
            api.refuses(InvalidParameterValueException, wrong)


class RecoveryPointListTests:
    """ListRecoveryPointsByBackupVault: newest first, filters, pages."""

    @pytest.fixture
    def points(self, api):
        """Six points of a new vault: three of the test's resource, two of a disk, one being created."""
        api.new_vault()
        disk = new_resource("disk")
        points = [api.backup({"a": b"1"}) for _ in range(3)]
        points += [api.backup({"a": b"1"}, resource=disk) for _ in range(2)]
        points.append(api.call(api.start_operation()).recovery_point_arn)
        return points

    def listed(self, api, **more):
        operation = ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, **more)
        return [point.recovery_point_arn for point in api.listed(operation)]

    @pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 1000])
    def test_pages(self, api, points, size):
        listed = self.listed(api, max_results=size)
        assert sorted(listed) == sorted(points)
        created = [api.point(arn).creation_date for arn in listed]
        assert created == sorted(created, reverse=True)

    def test_filters(self, api, points):
        assert set(self.listed(api, by_resource_arn=api.resource, max_results=1)) == {*points[:3], points[5]}
        assert set(self.listed(api, by_resource_type="Disk")) == set(points[3:5])
        assert self.listed(api, by_resource_type="Stream") == []
        assert self.listed(api, by_backup_plan_id="x") == self.listed(api, by_parent_recovery_point_arn="x") == []
        assert set(self.listed(api, by_created_after=1.0, by_created_before=4e9)) == set(points)
        assert self.listed(api, by_created_before=1.0) == self.listed(api, by_created_after=4e9) == []

    def test_listed_fields_equal_those_of_describe(self, api, points):
        page = api.call(ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, max_results=1))
        (listed,) = page.recovery_points
        described = api.point(listed.recovery_point_arn)
        for field in listed.__struct_fields__:
            assert getattr(listed, field) == getattr(described, field), field

    def test_a_token_is_valid_for_its_list_only(self, api, points):
        token = api.call(ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, max_results=1)).next_token
        for wrong in ({"by_resource_type": "Disk"}, {"by_resource_arn": api.resource}):
            api.refuses(
                InvalidParameterValueException,
                ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, next_token=token, **wrong),
            )
        other = ListRecoveryPointsByBackupVault(backup_vault_name="Default", next_token=token)
        api.refuses(InvalidParameterValueException, other)

    def test_an_unknown_vault(self, api):
        api.refuses(ResourceNotFoundException, ListRecoveryPointsByBackupVault(backup_vault_name="no-such-vault"))

    @pytest.mark.parametrize("size", [0, 1001])
    def test_other_page_sizes_are_refused(self, api, size):
        wrong = ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, max_results=size)
        api.refuses(InvalidParameterValueException, wrong)

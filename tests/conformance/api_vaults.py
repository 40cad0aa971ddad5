"""Conformance tests of the operations on vaults (control plane 2.3, 2.5)."""

from __future__ import annotations

import pytest

from cryostore.model.errors import (
    AlreadyExistsException,
    InvalidParameterValueException,
    InvalidRequestException,
    ResourceNotFoundException,
)
from cryostore.model.recovery_points import ListRecoveryPointsByBackupVault
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, DescribeBackupVault, ListBackupVaults
from support.requests.api import new_resource

KEY = "arn:aws:kms:local-1:000000000000:key/1"


def new_name():
    """Return a name that no other test uses."""
    return new_resource().rpartition(":")[2] + "_Vault"


class VaultTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    def describe(self, api, name):
        return api.call(DescribeBackupVault(backup_vault_name=name))

    def test_a_new_store_has_a_vault(self, api):
        assert self.describe(api, "Default").vault_state == "AVAILABLE"
        assert "Default" in [vault.backup_vault_name for vault in api.listed(ListBackupVaults())]

    def test_a_new_vault(self, api):
        name = new_name()
        created = api.call(CreateBackupVault(backup_vault_name=name))
        assert created.backup_vault_name == name
        assert created.backup_vault_arn == f"arn:aws:backup:local-1:000000000000:backup-vault:{name}"
        vault = self.describe(api, name)
        assert (vault.backup_vault_arn, vault.creation_date) == (created.backup_vault_arn, created.creation_date)
        assert (vault.vault_type, vault.vault_state, vault.locked) == ("BACKUP_VAULT", "AVAILABLE", False)
        assert (vault.encryption_key_type, vault.encryption_key_arn) == ("AWS_OWNED_KMS_KEY", None)
        assert vault.number_of_recovery_points == 0

    @pytest.mark.parametrize("arn", [KEY, "arn:aws:kms:local-1:000000000000:key/", "alias/x", "1"])
    def test_a_key_that_is_not_in_the_keyring_is_refused(self, api, arn):
        name = new_name()
        operation = CreateBackupVault(backup_vault_name=name, encryption_key_arn=arn)
        api.refuses_and_keeps(InvalidParameterValueException, operation)
        with pytest.raises(ResourceNotFoundException):
            self.describe(api, name)

    def test_a_repeated_request_has_the_same_answer(self, api):
        operation = CreateBackupVault(backup_vault_name=new_name(), creator_request_id="request-1")
        assert api.call(operation) == api.call(operation)

    def test_another_request_for_the_name_is_refused(self, api):
        name = new_name()
        created = api.call(CreateBackupVault(backup_vault_name=name, creator_request_id="request-1"))
        again = CreateBackupVault(backup_vault_name=name, creator_request_id="request-2")
        refusal = api.refuses_and_keeps(AlreadyExistsException, again)
        assert (refusal.creator_request_id, refusal.arn) == ("request-1", created.backup_vault_arn)
        default = CreateBackupVault(backup_vault_name="Default", creator_request_id="request-1")
        api.refuses_and_keeps(AlreadyExistsException, default)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"backup_vault_name": "x"},
            {"backup_vault_name": "x" * 51},
            {"backup_vault_name": "a.b"},
            {"backup_vault_name": "größe"},
            {"backup_vault_name": "aa\n"},
            {"encryption_key_arn": ""},
            {"encryption_key_arn": "x" * 2049},
            {"creator_request_id": "x" * 51},
            {"creator_request_id": "a b"},
            {"backup_vault_tags": {str(number): "" for number in range(51)}},
            {"backup_vault_tags": {"": ""}},
            {"backup_vault_tags": {"aws:key": ""}},
            {"backup_vault_tags": {"AWS:key": ""}},
            {"backup_vault_tags": {"k" * 129: ""}},
            {"backup_vault_tags": {"k": "v" * 257}},
        ],
        ids=lambda wrong: str(wrong)[:40],
    )
    def test_wrong_arguments(self, api, wrong):
        operation = CreateBackupVault(**({"backup_vault_name": new_name()} | wrong))
        api.refuses_and_keeps(InvalidParameterValueException, operation)

    @pytest.mark.parametrize("name", ["aa", "x" * 50, "a-_9"])
    def test_names_at_the_limits(self, api, name):
        api.call(CreateBackupVault(backup_vault_name=name, backup_vault_tags={"k" * 128: "v" * 256}))
        api.call(DeleteBackupVault(backup_vault_name=name))

    def test_an_unknown_vault(self, api):
        for operation in (DescribeBackupVault, DeleteBackupVault):
            api.refuses_and_keeps(ResourceNotFoundException, operation(backup_vault_name="no-such-vault"))

    def test_only_this_account_is_known(self, api):
        wrong = DescribeBackupVault(backup_vault_name="Default", backup_vault_account_id="111111111111")
        api.refuses(InvalidParameterValueException, wrong)

    def test_only_an_empty_vault_can_be_deleted(self, api):
        """Open jobs and recovery points prevent it. Afterwards its content is removed, and its name is free."""
        name = api.new_vault()
        delete = DeleteBackupVault(backup_vault_name=name)
        job = api.start_job()
        listed = api.call(ListRecoveryPointsByBackupVault(backup_vault_name=name)).recovery_points
        assert self.describe(api, name).number_of_recovery_points == len(listed) == 1, "list and count are equal"
        api.refuses_and_keeps(InvalidRequestException, delete)
        api.put(job, "a", b"1")
        api.chunk(job, api.start(job, "open"), 0, b"1")
        api.refuses_and_keeps(InvalidRequestException, delete)
        arn = api.commit(job, discard_open_uploads=True)
        assert self.describe(api, name).number_of_recovery_points == 1
        api.refuses_and_keeps(InvalidRequestException, delete, match="contains recovery points")
        api.delete_point(arn)
        assert self.describe(api, name).number_of_recovery_points == 0
        api.call(delete)
        api.refuses(ResourceNotFoundException, delete)
        api.refuses(ResourceNotFoundException, api.start_operation())
        api.call(CreateBackupVault(backup_vault_name=name, creator_request_id="another"))
        assert api.restored(api.backup({"a": b"1"})) == {"a": b"1"}, "it has a new key"

    def test_a_stopped_job_does_not_hold_a_vault(self, api):
        name = api.new_vault()
        job = api.start_job()
        api.put(job, "a", b"1")
        api.stop(job)
        api.call(DeleteBackupVault(backup_vault_name=name))

    def test_the_token_of_a_job_of_a_deleted_vault_starts_a_new_job(self, api):
        name = api.new_vault()
        operation = api.start_operation(idempotency_token=new_resource())
        first = api.call(operation).backup_job_id
        api.stop(first)
        api.call(DeleteBackupVault(backup_vault_name=name))
        api.call(CreateBackupVault(backup_vault_name=name))
        second = api.call(operation).backup_job_id
        assert second != first
        assert api.call(operation).backup_job_id == second


class VaultListTests:
    """ListBackupVaults: by name, filters, pages."""

    @pytest.fixture
    def names(self, api):
        names = [new_name() for _ in range(3)]
        for name in names:
            api.call(CreateBackupVault(backup_vault_name=name))
        return names

    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    def test_pages(self, api, names, size):
        listed = [vault.backup_vault_name for vault in api.listed(ListBackupVaults(max_results=size))]
        assert set(names) < set(listed)
        assert len(listed) == len(set(listed))
        assert listed == sorted(listed)

    def test_filters(self, api, names):
        assert api.listed(ListBackupVaults(by_shared=True)) == []
        assert api.listed(ListBackupVaults(by_vault_type="LOGICALLY_AIR_GAPPED_BACKUP_VAULT")) == []
        listed = api.listed(ListBackupVaults(by_vault_type="BACKUP_VAULT", by_shared=False))
        assert set(names) < {vault.backup_vault_name for vault in listed}

    def test_listed_fields_equal_those_of_describe(self, api, names):
        for listed in api.listed(ListBackupVaults()):
            if listed.backup_vault_name in names:
                described = api.call(DescribeBackupVault(backup_vault_name=listed.backup_vault_name))
                for field in listed.__struct_fields__:
                    assert getattr(listed, field) == getattr(described, field), field

    def test_a_token_is_valid_for_its_list_only(self, api, names):
        token = api.call(ListBackupVaults(max_results=1)).next_token
        wrong = ListBackupVaults(by_vault_type="BACKUP_VAULT", next_token=token)
        api.refuses(InvalidParameterValueException, wrong)
        for forged in (token[:-1], token + "A", "é"):
            api.refuses(InvalidParameterValueException, ListBackupVaults(next_token=forged))

    @pytest.mark.parametrize("wrong", [{"max_results": 0}, {"max_results": 1001}, {"by_vault_type": "NOPE"}], ids=str)
    def test_wrong_filters_are_refused(self, api, wrong):
        api.refuses(InvalidParameterValueException, ListBackupVaults(**wrong))

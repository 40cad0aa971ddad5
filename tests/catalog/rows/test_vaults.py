"""Rows of vaults."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import jobs, keys, lineages, recovery_points, restore_jobs, vaults
from support.catalogs.catalog_rows import job_row, point_row, restore_job_row


def add(catalog, name, **values):
    values = {"creator_request_id": None, "encryption_key_arn": None, "tags": "{}", "created_ms": 0} | values
    return catalog.write(lambda t: vaults.insert(t, name=name, **values))


def test_a_name_is_taken_once(catalog):
    vault = add(catalog, "one", tags='{"k": "v"}', created_ms=7)
    assert add(catalog, "one") is None
    assert catalog.read(lambda t: vaults.by_name(t, "one")) == vault
    assert catalog.read(lambda t: vaults.by_id(t, vault.vault_id)) == vault
    assert catalog.read(lambda t: vaults.by_name(t, "One")) is None


def test_pages_are_by_name(catalog):
    for name in ("b", "a", "c"):
        add(catalog, name)
    names = [row.name for row in catalog.read(lambda t: vaults.page(t, after="", limit=3))]
    assert names == ["a", "b", "c"]
    assert [row.name for row in catalog.read(lambda t: vaults.page(t, after="c", limit=3))] == ["v", "w"]


@pytest.mark.parametrize(
    ("insert", "used"),
    [
        (lambda t: recovery_points.insert(t, point_row(status="COMPLETED")), True),
        (lambda t: recovery_points.insert(t, point_row(status="DELETING")), True),
        (lambda t: jobs.insert(t, job_row()), True),
        (lambda t: jobs.insert(t, job_row(state="FAILED", completed_ms=1)), False),
        (lambda t: lineages.insert(t, 1, None), True),
        (lambda t: restore_jobs.insert(t, restore_job_row(completed_ms=1)), False),
    ],
    ids=["point", "point being deleted", "open job", "ended job", "rows not yet deleted", "ended restore"],
)
def test_a_vault_in_use_is_not_deleted(catalog, insert, used):
    catalog.write(insert)
    assert catalog.read(lambda t: vaults.is_used(t, 1)) == used
    assert not catalog.read(lambda t: vaults.is_used(t, 2))


def test_a_deleted_vault_takes_its_keys_and_jobs_along(catalog):
    for vault_id in (1, 2):

        def fill(transaction, vault_id=vault_id):
            keys.insert_vault_key(transaction, key_id=b"%d" % vault_id, vault_id=vault_id, wrapped=b"", created_ms=0)
            jobs.insert(transaction, job_row(f"J{vault_id}", vault_id=vault_id, state="FAILED", completed_ms=1))
            restore_jobs.insert(transaction, restore_job_row(f"R{vault_id}", vault_id=vault_id, completed_ms=1))

        catalog.write(fill)
    catalog.write(lambda t: vaults.delete(t, 1))
    assert not catalog.read(lambda t: vaults.exists(t, 1))
    assert catalog.read(lambda t: vaults.exists(t, 2))
    for table in ("vault", "vault_key", "backup_job", "restore_job"):
        (left,) = catalog.read(lambda t, table=table: t.rows(f"SELECT vault_id FROM {table}"))
        assert left == (2,)
    assert add(catalog, "v").vault_id > 2

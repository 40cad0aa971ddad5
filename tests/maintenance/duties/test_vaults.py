"""The chunk rows of deleted vaults go, those of others stay."""

from __future__ import annotations

import pytest

from cryostore.maintenance.duties import vaults


@pytest.fixture
def fill(model):
    def fill(vault_id, count):
        for number in range(count):
            values = {"vault_id": vault_id, "digest": bytes([number]) * 32, "pack_offset": number}
            model.database.write(
                lambda t, values=values: t.run(
                    "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length)"
                    " VALUES (:vault_id, :digest, 1, 1, :pack_offset, 10, 5)",
                    **values,
                )
            )

    return fill


def count(model):
    return dict(model.database.read(lambda t: t.rows("SELECT vault_id, count(*) FROM chunk GROUP BY vault_id")))


def test_chunks_of_vaults_that_are_gone_go(model, fill, snapshot):
    """Vault 1 is there, 7 and 9 are not."""
    fill(1, 3)
    before = snapshot()
    fill(7, 4)
    fill(9, 2)
    vaults.delete_chunks_of_deleted(model.context)
    assert count(model) == {1: 3}
    assert snapshot() == before


def test_a_round_takes_so_much_and_the_next_goes_on(model, fill, monkeypatch):
    monkeypatch.setattr(vaults, "ROWS_PER_BATCH", 2)
    monkeypatch.setattr(vaults, "BATCHES_PER_ROUND", 2)
    fill(7, 9)
    left = []
    while count(model):
        vaults.delete_chunks_of_deleted(model.context)
        left.append(count(model).get(7, 0))
    assert left == [5, 1, 0]

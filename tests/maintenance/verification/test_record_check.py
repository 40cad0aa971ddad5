"""Missing and damaged records are reported and written again; unknown records are reported."""

from __future__ import annotations

import pytest

from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.verification.check import CheckResult, check
from cryostore.maintenance.verification.repair import RepairResult, repair
from support.stores.in_process import opened

COVERS = ("maintenance/verification/catalog_check.py",)


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "data") as store:
        api = store.api()
        api.backup({"a": b"1", "b": b"2"})
        api.backup({"a": b"3"})
        maintain(store.service)
        yield store


def found(store):
    """Return the examples of the findings, by the name of their kind."""
    outcome = CheckResult()
    for _ in check(store.service.context, outcome):
        pass
    return {finding.kind.name: finding.examples for finding in outcome.findings}


def repaired(store, **more):
    outcome = RepairResult()
    for _ in repair(store.service.context, outcome, **more):
        pass
    return outcome


def parts(store):
    return sorted(path for path in (store.data_dir / "records").rglob("*") if path.is_file())


def test_a_sound_store_has_no_findings(store):
    assert len(parts(store)) == 4
    assert found(store) == {}
    assert repaired(store).records == 0


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_each_damaged_record_is_reported_and_written_again(store, damage):
    for path in parts(store):
        data = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
        (example,) = found(store)["record-damaged"]
        assert example.startswith("the record of")
        assert repaired(store, dry_run=True).records == 1
        assert found(store)["record-damaged"] == [example]
        assert repaired(store).records == 1
        assert found(store) == {}


def test_records_that_the_catalog_does_not_know_are_reported(store):
    """As after an old copy of the catalog was restored. Nothing is deleted, and the advice says what to do."""
    store.service.close()
    before = {path.name: path.read_bytes() for path in store.data_dir.glob("catalog*")}
    store.service = store.open()
    store.api().backup({"later": b"4"})
    store.service.close()
    for path in store.data_dir.glob("catalog*"):
        path.unlink()
    for name, data in before.items():
        (store.data_dir / name).write_bytes(data)
    store.service = store.open()
    said = found(store)["commit-unknown"]
    assert said[0].startswith("1 commits are in the store and not in this catalog")
    assert said[1].startswith("the record of commit")
    maintain(store.service)
    repaired(store)
    assert found(store)["commit-unknown"] == said
    assert "record-unknown" not in found(store)


def test_a_record_is_not_called_damaged_if_its_key_is_missing(store, monkeypatch):
    """It cannot be checked; the check of chunks reports the missing key."""
    monkeypatch.setattr("cryostore.maintenance.verification.opened_keys.OpenedKeys.key_of", lambda _self, _key_id: None)
    assert "record-damaged" not in found(store)

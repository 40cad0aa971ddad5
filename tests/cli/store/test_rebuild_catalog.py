"""`cryo rebuild-catalog` on a real store."""

from __future__ import annotations

import json

import pytest

from support.requests.api import footprint
from support.stores.in_process import opened
from support.stores.store_picture import differences, picture


@pytest.fixture
def data_dir(tmp_path):
    """A store with a point."""
    with opened(tmp_path / "data") as store:
        store.api().backup({"a": b"1" * 1000, "b": b"2"})
        said = picture(store.api())
    (tmp_path / "said.json").write_text(json.dumps(said["points"]))
    return tmp_path / "data"


def lose(data_dir):
    for path in data_dir.glob("catalog*"):
        path.unlink()


def test_the_catalog_is_rebuilt(cryo, data_dir):
    lose(data_dir)
    assert "cryo rebuild-catalog" in cryo("serve", "--data-dir", data_dir, code=2).err
    said = json.loads(cryo("rebuild-catalog", "--data-dir", data_dir, "--json").out)
    assert said == {"vaults": 1, "recovery_points": 1, "objects": 2, "packs": 1, "chunks": 2, "losses": []}
    with opened(data_dir) as store:
        before = json.loads((data_dir.parent / "said.json").read_text())
        assert differences(before, picture(store.api())["points"]) == []


def test_losses_are_reported_with_exit_code_1(cryo, data_dir):
    lose(data_dir)
    for path in (data_dir / "records" / "commit").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    result = cryo("rebuild-catalog", "--data-dir", data_dir, code=1)
    assert "lost: the record of commit 1.1 cannot be read" in result.out


def test_an_existing_catalog_is_not_replaced(cryo, data_dir):
    before = footprint(data_dir)
    result = cryo("rebuild-catalog", "--data-dir", data_dir, code=2)
    assert "--replace" in result.err
    assert footprint(data_dir) == before


def test_a_directory_without_a_keyring_is_no_store(cryo, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "keyring" in cryo("rebuild-catalog", "--data-dir", tmp_path / "empty", code=2).err
    assert list((tmp_path / "empty").iterdir()) == []


def test_an_operator_s_own_copies_do_not_stop_the_last_step(cryo, data_dir):
    for name in ("catalog.sqlite.replaced.1.gz", "catalog.sqlite.replaced.7.gz", "catalog.sqlite.replaced.x"):
        (data_dir / name).write_bytes(b"kept")
    (data_dir / "catalog.sqlite.replaced.old").mkdir()
    cryo("rebuild-catalog", "--data-dir", data_dir, "--replace")
    assert (data_dir / "catalog.sqlite.replaced.8").exists()
    assert (data_dir / "catalog.sqlite.replaced.1.gz").read_bytes() == b"kept"
    cryo("rebuild-catalog", "--data-dir", data_dir, "--replace")
    assert (data_dir / "catalog.sqlite.replaced.9").exists()

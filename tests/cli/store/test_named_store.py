"""The store that a store command names: options, a file, or the environment; a directory or a shared store."""

from __future__ import annotations

import json

import pytest

from cryostore.core.time import wall_clock
from support.stores.shared_store import opened_shared, options_of


def test_secrets_on_the_command_line_are_refused(cryo, tmp_path):
    refused = cryo("gc", "--catalog", "postgresql://u:hidden@h/d", "--blobs", "s3://b", "--keyring", "k", code=2)
    assert "CRYO_CATALOG" in refused.err
    assert "hidden" not in refused.err


@pytest.fixture
def store(tmp_path):
    """A shared store with a recovery point, and a job that is open."""
    with opened_shared(tmp_path, clock=wall_clock) as store:
        api = store.api()
        store.point = api.backup({"name": b"1" * 1000})
        api.start_job()
        yield store


def test_every_store_command_works_on_a_shared_store(cryo, store, tmp_path):
    there = options_of(store.place)
    assert json.loads(cryo("gc", *there, "--json").out)["chunks"] == 1
    assert [pin["kind"] for pin in json.loads(cryo("jobs", *there, "--json").out)] == ["backup"]
    assert "1 packs verified" in cryo("scrub", *there).out
    assert "no problems found" in cryo("check", *there).out
    assert "chunks damaged or missing" in cryo("repair", *there).out
    (key,) = json.loads(cryo("key", "list", *there, "--json").out)["keys"]
    assert key["wraps"]["secret"] == 2
    assert "is in use, and is new" in cryo("key", "rotate", *there).out
    cryo("key", "forget", *there, key["key_id"])
    cryo("key", "export", *there, "--to", tmp_path / "copy")
    assert "all 1 master keys" in cryo("key", "verify", *there, tmp_path / "copy").out
    assert "0 keys added" in cryo("key", "import", *there, tmp_path / "copy").out
    assert "there is a catalog in" in cryo("rebuild-catalog", *there, code=2).err
    assert "--replace is for" in cryo("rebuild-catalog", *there, "--replace", code=2).err
    new = store.place._replace(catalog=str(tmp_path / "new.sqlite"))
    assert json.loads(cryo("rebuild-catalog", *options_of(new), "--json").out)["recovery_points"] == 1
    store.place = new
    store.reopen()
    assert store.api().restored(store.point) == {"name": b"1" * 1000}


def test_a_file_may_name_the_store(cryo, store, tmp_path, monkeypatch):
    """For every command; the quarantine in the file has effect as well."""
    place = store.place
    path = tmp_path / "cryo.toml"
    path.write_text(
        f'catalog = "{place.catalog}"\nblobs = "{place.blobs}"\nkeyring = "{place.keyring}"\nquarantine = "0s"\n'
    )
    assert json.loads(cryo("gc", "--config", path, "--json").out)["chunks"] == 1
    monkeypatch.setenv("CRYO_CONFIG", str(path))
    store.api().delete_point(store.point)
    store.maintain()
    assert json.loads(cryo("gc", "--json").out)["removed"] == 1
    assert "exclude each other" in cryo("gc", "--data-dir", tmp_path, code=2).err
    monkeypatch.setenv("CRYO_CATALOG", str(tmp_path / "absent"))
    assert "there is no catalog at" in cryo("gc", code=2).err

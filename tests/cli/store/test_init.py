"""`cryo init`: a shared store is prepared; a data directory needs no such step."""

from __future__ import annotations

import json

from support.stores.in_process import opened
from support.stores.shared_store import options_of


def test_the_result_names_the_store_and_warns_of_losing_the_keyring(cryo, place, tmp_path):
    said = cryo("init", *options_of(place), "--credentials", tmp_path / "credentials")
    assert "LOSING IT LOSES EVERY BACKUP" in said.err
    assert str(tmp_path / "keyring.json") in said.err
    assert said.out.startswith("prepared store ")
    assert f"written to {tmp_path / 'credentials'}" in said.out
    again = cryo("init", *options_of(place), "--credentials", tmp_path / "credentials")
    assert again.out.startswith("already prepared: store ")
    assert f"already in {tmp_path / 'credentials'}" in again.out
    assert again.err == ""
    assert cryo("init", *options_of(place), "--upgrade").out.startswith("already prepared")
    document = json.loads(cryo("init", *options_of(place), "--upgrade", "--json").out)
    assert document["store_id"] in said.out
    secret = (tmp_path / "credentials").read_text().splitlines()[3].partition(" = ")[2]
    assert secret not in said.out + said.err + json.dumps(document)


def test_required_options(cryo, place, tmp_path):
    assert "no shared store is named" in cryo("init", "--credentials", tmp_path / "c", code=2).err
    assert "--credentials FILE" in cryo("init", *options_of(place), code=2).err
    assert "needs --keyring" in cryo("init", *options_of(place)[:4], "--credentials", tmp_path / "c", code=2).err
    refused = cryo("init", *options_of(place), "--data-dir", tmp_path, "--credentials", tmp_path / "c", code=2)
    assert "--data-dir and --catalog and --blobs exclude each other" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_needs_no_init(cryo, tmp_path):
    with opened(tmp_path / "data") as store:
        store.api().backup({"name": b"1"})
    assert "no problems found" in cryo("check", "--data-dir", tmp_path / "data").out

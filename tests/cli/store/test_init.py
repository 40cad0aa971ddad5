"""`cryo init`, and the other commands on a shared store."""

from __future__ import annotations

import json

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from cryostore.server import run as server_run
from support.stores.in_process import opened
from support.stores.shared_store import fresh_place, opened_shared


@pytest.fixture
def cryo(capsys, monkeypatch):
    """Run a command line, check its exit code, and return its output."""
    for name in ("CRYO_DATA_DIR", "CRYO_CATALOG", "CRYO_BLOBS", "CRYO_KEYRING", "CRYO_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def carry_out(*arguments, code=0):
        assert run([str(argument) for argument in arguments]) == code, capsys.readouterr()
        return capsys.readouterr()

    return carry_out


def on(place):
    return "--catalog", place.catalog, "--blobs", place.blobs, "--keyring", place.keyring


@pytest.fixture
def place(tmp_path):
    with fresh_place(tmp_path) as place:
        yield place


def test_the_result_names_the_store_and_warns_of_losing_the_keyring(cryo, place, tmp_path):
    said = cryo("init", *on(place), "--credentials", tmp_path / "credentials")
    assert "LOSING IT LOSES EVERY BACKUP" in said.err
    assert str(tmp_path / "keyring.json") in said.err
    assert said.out.startswith("prepared store ")
    assert f"written to {tmp_path / 'credentials'}" in said.out
    again = cryo("init", *on(place), "--credentials", tmp_path / "credentials")
    assert again.out.startswith("already prepared: store ")
    assert f"already in {tmp_path / 'credentials'}" in again.out
    assert again.err == ""
    assert cryo("init", *on(place), "--upgrade").out.startswith("already prepared")
    document = json.loads(cryo("init", *on(place), "--upgrade", "--json").out)
    assert document["store_id"] in said.out
    secret = (tmp_path / "credentials").read_text().splitlines()[3].partition(" = ")[2]
    assert secret not in said.out + said.err + json.dumps(document)


def test_required_options(cryo, place, tmp_path):
    assert "no shared store is named" in cryo("init", "--credentials", tmp_path / "c", code=2).err
    assert "--credentials FILE" in cryo("init", *on(place), code=2).err
    assert "needs --keyring" in cryo("init", *on(place)[:4], "--credentials", tmp_path / "c", code=2).err
    refused = cryo("init", *on(place), "--data-dir", tmp_path, "--credentials", tmp_path / "c", code=2)
    assert "--data-dir and --catalog and --blobs exclude each other" in refused.err
    assert list(tmp_path.iterdir()) == []


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
    there = on(store.place)
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
    assert json.loads(cryo("rebuild-catalog", *on(new), "--json").out)["recovery_points"] == 1
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


@pytest.fixture
def configured(monkeypatch):
    """Collect the configurations that servers would have been started with."""
    found = []
    monkeypatch.setattr(server_run, "serve", lambda configuration, _: found.append(configuration))
    return found


def test_a_server_on_a_shared_store(cryo, place, configured, tmp_path, monkeypatch):
    """Named on the command line, in the environment and in a file, in this order of precedence."""
    path = tmp_path / "cryo.toml"
    path.write_text(f'catalog = "{place.catalog}"\nblobs = "file"\nlisten = "127.0.0.1:1"\nquarantine = "1h"\n')
    monkeypatch.setenv("CRYO_KEYRING", place.keyring)
    monkeypatch.setenv("CRYO_LISTEN", "127.0.0.1:2")
    cryo("serve", "--config", path, "--blobs", place.blobs, "--workers", 1)
    (found,) = configured
    assert (found.data_dir, found.catalog, found.blobs, found.keyring) == (None, *place)
    assert (found.port, found.workers, found.settings.quarantine_ms) == (2, 1, 3_600_000)
    assert "unknown option listn" in cryo("serve", "--config", _written(path, 'listn = "x"'), code=2).err


def _written(path, text):
    path.write_text(text)
    return path


def test_a_data_directory_needs_no_init(cryo, tmp_path):
    with opened(tmp_path / "data") as store:
        store.api().backup({"name": b"1"})
    assert "no problems found" in cryo("check", "--data-dir", tmp_path / "data").out

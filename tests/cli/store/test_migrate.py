"""`cryo migrate` on real stores, where a shared one is an SQLite file and a folder."""

from __future__ import annotations

import json

import pytest

from cryostore.cli.store.migrate import progress_words
from cryostore.cli.verbs import run
from cryostore.core.limits import MIB
from cryostore.maintenance.migrate.side import StageProgress
from cryostore.service.opening.data_directory import InUse
from support.stores.collecting import noise
from support.stores.in_process import opened

NAMES = (
    "CRYO_DATA_DIR", "CRYO_CATALOG", "CRYO_BLOBS", "CRYO_KEYRING", "CRYO_CONFIG", "CRYO_TO_CATALOG", "CRYO_TO_BLOBS",
)  # fmt: skip


class Places:
    """A store with a point in a directory, and the options of a shared place and of another directory."""

    def __init__(self, folder, capsys):
        self.data_dir, self.other_dir = folder / "data", folder / "other"
        with opened(self.data_dir) as store:
            self.point = store.api().backup({"a": noise(1, 3000), "b": b"2"})
        keyring = folder / "keyring.json"
        keyring.write_bytes((self.data_dir / "keyring.json").read_bytes())
        keyring.chmod(0o600)
        self.keyring = keyring
        self.shared = ["--catalog", folder / "catalog.sqlite", "--blobs", folder / "blobs", "--keyring", keyring]
        self._capsys = capsys

    def cryo(self, *arguments, code=0):
        """Carry out a command line, check its exit code, and return its output."""
        assert run([str(argument) for argument in arguments]) == code, self._capsys.readouterr()
        return self._capsys.readouterr()

    def migrate(self, *more, data_dir=None, code=0):
        """Carry out `cryo migrate` between the directory and the shared place."""
        return self.cryo("migrate", "--data-dir", data_dir or self.data_dir, *self.shared, *more, code=code)


@pytest.fixture
def places(tmp_path, capsys, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return Places(tmp_path, capsys)


def test_there_and_back_with_the_next_steps(places):
    there = places.migrate().out
    assert "cryo serve --catalog" in there
    assert "is kept and cannot be opened any more" in there
    refusal = places.cryo("check", "--data-dir", places.data_dir, code=2).err
    assert "this store was moved" in refusal
    assert "cryo migrate --help" in refusal
    assert "put the keyring" not in refusal
    places.cryo("check", *places.shared)
    back = places.migrate("--back", "--verify-data", data_dir=places.other_dir).out
    assert f"cryo serve --data-dir {places.other_dir}" in back
    assert "moved last" in places.cryo("check", *places.shared, code=2).err
    places.cryo("check", "--data-dir", places.other_dir, "--keyring", places.keyring)
    (places.other_dir / "keyring.json").write_bytes(places.keyring.read_bytes())
    (places.other_dir / "keyring.json").chmod(0o600)
    with opened(places.other_dir) as store:
        assert store.api().restored(places.point) == {"a": noise(1, 3000), "b": b"2"}


def test_a_shared_store_is_moved_to_another_shared_place(places, tmp_path):
    places.migrate()
    there = ["--to-catalog", tmp_path / "next.sqlite", "--to-blobs", tmp_path / "next"]
    assert "would be copied" in places.cryo("migrate", *places.shared, *there, "--dry-run").out
    assert not (tmp_path / "next").exists()
    said = places.cryo("migrate", *places.shared, *there, "--verify-data").out
    assert f"cryo serve --catalog {tmp_path / 'next.sqlite'} --blobs {tmp_path / 'next'}" in said
    assert "was already moved" in places.cryo("migrate", *places.shared, *there).out
    assert "moved last" in places.cryo("check", *places.shared, code=2).err
    moved = ["--catalog", tmp_path / "next.sqlite", "--blobs", tmp_path / "next", "--keyring", places.keyring]
    places.cryo("check", *moved)
    elsewhere = ["--to-catalog", tmp_path / "other.sqlite", "--to-blobs", tmp_path / "other"]
    assert "was moved to" in places.cryo("migrate", *places.shared, *elsewhere, code=2).err


def test_source_and_target_must_be_complete(places, tmp_path):
    catalog, blobs = ["--to-catalog", tmp_path / "c"], ["--to-blobs", tmp_path / "b"]
    assert "give --to-catalog and --to-blobs together" in places.cryo("migrate", *places.shared, *catalog, code=2).err
    assert "give --to-catalog and --to-blobs together" in places.cryo("migrate", *places.shared, *blobs, code=2).err
    assert "give --catalog, --blobs and --keyring" in places.cryo("migrate", *catalog, *blobs, code=2).err
    secret = ["--to-catalog", "postgresql://u:geheim@a:1,[::1]:2/db", *blobs]
    assert "CRYO_TO_CATALOG" in (told := places.cryo("migrate", *places.shared, *secret, code=2).err)
    assert "geheim" not in told
    assert "a directory is moved to --catalog" in places.migrate(*catalog, *blobs, code=2).err


def test_the_result_as_json_and_of_a_repetition(places):
    said = json.loads(places.migrate("--json").out)
    assert said["clean"]
    assert (said["carried"]["packs"], said["tables"]["chunk"]["rows"]) == (1, 2)
    assert json.loads(places.migrate("--json").out)["done_before"]
    assert "was already moved" in places.migrate().out


def test_a_dry_run_prints_the_plan_and_changes_nothing(places):
    before = sorted(places.data_dir.parent.rglob("*"))
    server = InUse(places.data_dir)
    said = json.loads(places.migrate("--dry-run", "--json").out)
    server.close()
    assert said["blobs"] >= 4
    assert said["rows"]["chunk"] == 2
    assert "would be copied" in places.migrate("--dry-run").out
    assert sorted(set(places.data_dir.parent.rglob("*")) - set(before)) in ([], [places.data_dir / "in-use.lock"])
    assert not places.shared[1].exists()


def test_nothing_is_moved_while_a_server_runs(places):
    server = InUse(places.data_dir)
    said = places.migrate(code=2).err
    assert "stop `cryo serve` and try again" in said
    server.close()
    places.migrate()


def test_a_moved_store_is_taken_back(places):
    assert "was not moved away" in places.cryo("migrate", "--take-back", "--data-dir", places.data_dir, code=2).err
    places.migrate()
    said = json.loads(places.cryo("migrate", "--take-back", "--data-dir", places.data_dir, "--json").out)
    assert said["was_moved_to"].endswith("blobs")
    places.cryo("check", "--data-dir", places.data_dir)
    places.migrate("--back", data_dir=places.other_dir)
    assert "never serve" in places.cryo("migrate", "--take-back", *places.shared).out
    places.cryo("check", *places.shared)


def test_missing_options_are_named(places):
    said = places.cryo("migrate", "--data-dir", places.data_dir, code=2).err
    assert "give --catalog, --blobs and --keyring" in said
    assert "give --data-dir" in places.cryo("migrate", *places.shared, code=2).err
    assert "no store to take back" in places.cryo("migrate", "--take-back", code=2).err


def test_a_target_that_holds_a_store_is_not_changed(places, tmp_path):
    places.cryo("init", *places.shared[:4], "--keyring", tmp_path / "k.json", "--credentials", tmp_path / "c")
    assert "already holds a store" in places.migrate(code=2).err
    places.cryo("check", *places.shared[:4], "--keyring", tmp_path / "k.json")


def test_a_directory_without_a_store_is_not_changed(places, tmp_path):
    assert "holds no store" in places.migrate(data_dir=tmp_path / "nothing", code=2).err
    assert not (tmp_path / "nothing").exists()


def test_another_keyring_is_refused(places, tmp_path):
    with opened(tmp_path / "stranger"):
        pass
    places.shared[-1] = tmp_path / "stranger" / "keyring.json"
    assert "the keyring does not open" in places.migrate(code=2).err


def test_progress_shows_amount_and_time_left():
    assert progress_words(StageProgress("rows", 5), 0.5) == "rows 5"
    assert progress_words(StageProgress("rows", 500, 2000), 10) == "rows 500 of 2000, about 0:00:30 left"
    assert (
        progress_words(StageProgress("blobs", 1, 100, 64 * MIB), 64)
        == "blobs 1 of 100, 64 MiB, 1.0 MiB/s, about 1:45:36 left"
    )

"""`cryo repair` on a real store: damage, its detection, and its repair."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from support.stores import integrity
from support.stores.in_process import opened

CONTENTS = {"first": b"first" * 100, "second": b"second" * 100}


@pytest.fixture
def store(tmp_path):
    """A data directory with one point, and the point."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        return tmp_path / "data", store.api().backup(CONTENTS)


def forget_the_pack(data_dir):
    """Remove the pack from the catalog, as if the catalog were older."""
    with closing(sqlite3.connect(data_dir / "catalog.sqlite", isolation_level=None)) as connection:
        connection.execute("DELETE FROM chunk")
        connection.execute("DELETE FROM pack")


def restored(data_dir, point):
    """Return the content of the point."""
    with opened(data_dir, clock=wall_clock) as store:
        return store.api().restored(point)


def test_a_pack_that_the_catalog_does_not_know(store, capsys):
    data_dir, point = store
    forget_the_pack(data_dir)
    assert run(["check", "--data-dir", str(data_dir), "--json"]) == 1
    found = {one["name"]: one["count"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found == {"pack-unknown": 1, "chunk-missing": 2}
    assert run(["repair", "--data-dir", str(data_dir), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "would be saved: 2 chunks, from other copies"
    assert run(["check", "--data-dir", str(data_dir)]) == 1, "a dry run has changed nothing"
    capsys.readouterr()
    assert run(["repair", "--data-dir", str(data_dir), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["chunks_saved"], outcome["packs_adopted"], outcome["lost"]) == (2, 1, 0)
    assert run(["check", "--data-dir", str(data_dir), "--data"]) == 0
    assert restored(data_dir, point) == CONTENTS
    assert integrity.problems(data_dir) == []


def test_lost_chunks_are_reported_and_the_next_backup_heals_them(store, capsys):
    data_dir, point = store
    (pack,) = data_dir.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    assert run(["scrub", "--data-dir", str(data_dir)]) == 1
    capsys.readouterr()
    assert run(["repair", "--data-dir", str(data_dir)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "1 chunks are lost until they are uploaded again: back up the affected resources again" in said
    assert f"affected: {point}" in said
    with opened(data_dir, clock=wall_clock) as again:
        again.api().backup(CONTENTS)
    assert run(["scrub", "--data-dir", str(data_dir)]) == 0
    assert run(["repair", "--data-dir", str(data_dir)]) == 0
    assert restored(data_dir, point) == CONTENTS


def test_a_directory_without_a_store_is_not_changed(tmp_path, capsys):
    assert run(["repair", "--data-dir", str(tmp_path)]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

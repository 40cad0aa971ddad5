"""`cryo check` on a real store that another process has open."""

from __future__ import annotations

import json

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from support.stores.in_process import opened


@pytest.fixture
def store(tmp_path):
    """A data directory with one point, and the point."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        return tmp_path / "data", store.api().backup({"first": b"first" * 100, "second": b"second" * 100})


def spoil(data_dir, at):
    """Flip a bit of the pack, and return its path."""
    (pack,) = data_dir.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[at] ^= 1
    pack.write_bytes(data)
    return pack


def picture(data_dir):
    """Return the packs with their bytes."""
    return {path: path.read_bytes() for path in data_dir.rglob("*.pack")}


def test_a_sound_store_while_another_process_writes(store, capsys):
    data_dir, _ = store
    with opened(data_dir, clock=wall_clock) as other:
        other.api().backup({"third": b"third" * 100})
        assert run(["check", "--data-dir", str(data_dir), "--data"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 packs, 3 chunks, 3 objects"
    assert said[-1] == "no problems found"


def test_findings_come_with_meaning_and_advice(store, capsys):
    data_dir, point = store
    spoil(data_dir, 40)
    before = picture(data_dir)
    assert run(["check", "--data-dir", str(data_dir)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[2].startswith("chunk-damaged: 1: the bytes of a chunk are damaged")
    assert said[4].startswith("  what to do: run `cryo repair`")
    assert said[5] == f"affected: {point}"
    assert run(["check", "--data-dir", str(data_dir), "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)
    (found,) = outcome["findings"]
    assert (found["name"], found["count"], found["harmless"]) == ("chunk-damaged", 1, False)
    assert [one["recovery_point_arn"] for one in outcome["damage"]["points"]] == [point]
    assert picture(data_dir) == before


def test_data_is_read_only_on_demand(store, capsys):
    data_dir, _ = store
    spoil(data_dir, -1)
    assert run(["check", "--data-dir", str(data_dir)]) == 0
    assert run(["check", "--data-dir", str(data_dir), "--data"]) == 1


def test_a_directory_without_a_store_is_not_changed(tmp_path, capsys):
    assert run(["check", "--data-dir", str(tmp_path)]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

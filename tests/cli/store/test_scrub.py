"""`cryo scrub` on a real store."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from contextlib import ExitStack, closing
from types import SimpleNamespace

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from cryostore.maintenance.claims import SCRUB, claimed, this_process
from cryostore.service.opening.open import open_service
from support.archives.agent import write
from support.stores.in_process import opened

COVERS = ("cli/store/affected.py",)


@pytest.fixture
def store(tmp_path):
    """A data directory with one point, and the point."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        api = store.api()
        return tmp_path / "data", api.backup({"first": b"first" * 100, "turn\u202eed": b"second" * 100})


def spoil(data_dir):
    """Flip a bit of the last envelope, and return its pack."""
    (pack,) = data_dir.rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)


def test_a_sound_store(store, capsys):
    data_dir, _ = store
    assert run(["scrub", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out == "1 packs verified, 2 chunks, 0.0 MiB\n"


def test_damage_is_reported_with_the_points_it_affects(store, capsys):
    data_dir, point = store
    spoil(data_dir)
    assert run(["scrub", "--data-dir", str(data_dir), "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["damaged"], outcome["damage"]["objects"]) == (1, 1)
    (affected,) = outcome["damage"]["points"]
    assert (affected["recovery_point_arn"], affected["vault"], affected["names"]) == (
        point,
        "Default",
        ["turn\u202eed"],
    )
    assert run(["scrub", "--data-dir", str(data_dir), "--sample", "50", "--max-duration", "1m"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1 packs verified, 2 chunks")
    assert said[1] == "1 chunks known to be damaged still are"
    assert said[2] == f"affected: {point}"
    assert said[4:] == ["  1 object:", "    'turn\\u202eed'"]


def test_a_scrub_waits_for_the_portion_of_a_server(store, capsys, monkeypatch):
    """The error names a process that holds the claim for longer than a portion."""
    data_dir, _ = store
    service = open_service(data_dir)
    waits = []
    with claimed(service.context, SCRUB):
        moments = itertools.count()
        monkeypatch.setattr(
            "cryostore.cli.store.scrub.time", SimpleNamespace(monotonic=lambda: next(moments), sleep=waits.append)
        )
        assert run(["scrub", "--data-dir", str(data_dir)]) == 2
        assert f"scrub is done by {this_process()} since" in capsys.readouterr().err
        assert len(waits) == 29
    with ExitStack() as stack:
        stack.enter_context(claimed(service.context, SCRUB))
        monkeypatch.setattr("cryostore.cli.store.scrub.time.sleep", lambda _: stack.close())
        assert run(["scrub", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out == "1 packs verified, 2 chunks, 0.0 MiB\n"
    service.close()


@pytest.mark.parametrize("text", ["", "30", "m", "-1m", "1w", "1m30s"])
def test_an_invalid_duration_is_refused(store, text, capsys):
    assert run(["scrub", "--data-dir", str(store[0]), "--max-duration", text]) == 2
    assert "such as 30m" in capsys.readouterr().err


def test_a_directory_without_a_store_is_not_changed(tmp_path, capsys):
    assert run(["scrub", "--data-dir", str(tmp_path)]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def spoil_content(data_dir):
    """Flip a bit of the largest chunk."""
    with closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
        query = "SELECT name, pack_offset FROM chunk JOIN pack USING (pack_number) ORDER BY sealed_length DESC LIMIT 1"
        name, offset = catalog.execute(query).fetchone()
    (pack,) = data_dir.rglob(f"{name}.pack")
    content = bytearray(pack.read_bytes())
    content[offset + 200] ^= 1
    pack.write_bytes(content)


def test_scrub_reports_whether_files_are_affected_or_only_unused_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CRYO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write(tmp_path / "source", {name: random.Random(name).randbytes(20_000) for name in "abc"})
    source = str(tmp_path / "source")
    assert run(["backup", source, "--resource", "tree"]) == 0
    (tmp_path / "source" / "c").unlink()
    assert run(["backup", source, "--resource", "tree"]) == 0
    spoil_content(tmp_path / "data")
    capsys.readouterr()

    def files_line(nth):
        assert run(["scrub"]) == 1
        said = capsys.readouterr().out.splitlines()
        return said[[place for place, line in enumerate(said) if line.startswith("affected: ")][nth] + 2].strip()

    assert [files_line(nth) for nth in (0, 1)] == [
        "2 of its files are affected: `cryo verify` names them",
        "3 of its files are affected: `cryo verify` names them",
    ]
    assert run(["backup", source, "--resource", "tree"]) == 0
    capsys.readouterr()
    assert files_line(0).startswith("none of its files is affected")
    assert files_line(1) == "1 of its files are affected: `cryo verify` names them"

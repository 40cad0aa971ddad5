"""`cryo scrub` on a real store."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from cryostore.maintenance.claims import SCRUB, claimed, this_process
from cryostore.service.opening.open import open_service
from support.stores.in_process import opened


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

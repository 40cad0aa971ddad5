"""`cryo gc` on a real store."""

from __future__ import annotations

import json

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from support.stores.in_process import opened


@pytest.fixture
def data_dir(tmp_path):
    """A store with an open job and an unused object."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        api = store.api()
        api.put(api.start_job(), "a", b"kept")
        other = api.start_job(resource="arn:aws:cryo:local-1:000000000000:fileset:host:other")
        api.put(other, "b", b"garbage")
        api.stop(other)
    return tmp_path / "data"


def test_the_result_of_a_collection(data_dir, capsys):
    assert run(["gc", "--data-dir", str(data_dir), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["condemned"] == 1
    assert run(["gc", "--data-dir", str(data_dir), "--json", "--quarantine", "0"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["chunks"], outcome["condemned"], outcome["removed"]) == (2, 1, 1)
    assert run(["gc", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.startswith("1 chunks\n")


def test_a_directory_without_a_store_is_not_changed(tmp_path, capsys):
    assert run(["gc", "--data-dir", str(tmp_path)]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

"""`cryo jobs` on a real store."""

from __future__ import annotations

import json

import pytest

from cryostore.cli.verbs import run
from cryostore.core.time import wall_clock
from cryostore.maintenance.claims import claimed, this_process
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


def test_open_jobs(data_dir, capsys):
    assert run(["jobs", "--data-dir", str(data_dir), "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)
    assert (job["kind"], job["state"], job["vault"]) == ("backup", "RUNNING", "Default")
    assert job["lapses_ms"] > job["active_ms"] >= job["begun_ms"]
    assert run(["jobs", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.startswith("backup ")


def test_claims_of_background_work(tmp_path, capsys):
    """Including an expired claim, whose process is gone."""
    with opened(tmp_path / "data", clock=wall_clock) as store:
        run(["jobs", "--data-dir", str(tmp_path / "data")])
        assert capsys.readouterr().out == "no open jobs, no claims\n"
        with claimed(store.service.context, "scrub") as claim:
            claim.doing = "scrub 3 of 9"
            claim.renew()
            assert run(["jobs", "--data-dir", str(tmp_path / "data")]) == 0
            said = capsys.readouterr().out
            assert said.startswith(f"claim scrub by {this_process()}: scrub 3 of 9 begun 0 s ago, lapses in 11")
            store.service.context.database.write(lambda t: t.run("UPDATE claim SET until_ms = 0 WHERE work = 'scrub'"))
            assert run(["jobs", "--data-dir", str(tmp_path / "data"), "--json"]) == 0
            (shown,) = json.loads(capsys.readouterr().out)
            assert (shown["kind"], shown["id"], shown["state"]) == ("claim", "scrub", "LAPSED")
            assert (shown["holder"], shown["fence"], shown["doing"]) == (this_process(), 1, "scrub 3 of 9")
            run(["jobs", "--data-dir", str(tmp_path / "data")])
            assert capsys.readouterr().out.endswith("ago, LAPSED\n")


def test_a_directory_without_a_store_is_not_changed(tmp_path, capsys):
    assert run(["jobs", "--data-dir", str(tmp_path)]) == 2
    assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

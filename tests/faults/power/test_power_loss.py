"""Power loss at any moment of a real process: no acknowledged data is lost in any possible state of the file system.

A program works on a real store under `strace`. From its system calls, including those of SQLite, the test builds every
state of the disk that `support.power.disk` allows. The current code opens each state: it must find all acknowledged
data byte for byte, no partial data, and accept another backup. Some states are opened without their catalog: the
records beside it must be enough to rebuild it. `make test` tries a part of the states, spread evenly. `make stress`
tries all of them, and many more mixtures.

Other tests leave out one kind of flush, to show that the check can fail.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from cryostore.core.errors import CryostoreError
from support.power.check import check, check_rebuilt
from support.power.disk import Disk, write
from support.power.scenarios import SCENARIOS
from support.power.states import states
from support.power.trace import Operation, require_strace, traced, tree
from support.project import ROOT

MEMORY = Path("/dev/shm")
ONE_OF = 17
REBUILT_ONE_OF = 7
MIXTURES, MIXTURES_STRESS = 1, 40
STATES_MIN = 40

# Kinds of flushes, each with a scenario that loses data without them.
FLUSHES = {
    "the bytes of packs": ("jobs", lambda path: path.endswith(".pack")),
    "the names of packs": ("jobs", lambda path: path.startswith("store/packs/") and not path.endswith(".pack")),
    "the directories of packs": ("jobs", lambda path: path == "store/packs"),
    "the log of the catalog": ("jobs", lambda path: path.endswith("-wal")),
    "the catalog before its log is used again": ("jobs", lambda path: path.endswith(".sqlite")),
    "the bytes of the keyring": ("first start", lambda path: path.startswith("store/~") and "/" not in path[7:]),
    "the names in the store": ("first start", lambda path: path == "store"),
    "the name of the store": ("first start", lambda path: path == ""),
}


@pytest.fixture(scope="module")
def scratch():
    """A folder, in memory if possible, because the flushes of the test itself have no purpose."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def trace_of(scratch):
    """A function that returns the trace of a scenario. Each scenario runs once for all tests."""
    require_strace()
    known = {}

    def run(name):
        if name not in known:
            place = scratch / name.replace(" ", "-")
            folder = place / "disk"
            folder.mkdir(parents=True)
            SCENARIOS[name][0](folder)
            command = [sys.executable, "-m", "support.power.scenarios", name, str(folder), str(place / "marks")]
            known[name] = traced(
                command, folder, place / "marks", place / "log", PYTHONPATH=f"{ROOT / 'src'}:{ROOT / 'tests'}"
            )
            shown = {path: data for path, data in tree(folder).items() if not path.endswith("-shm")}
            assert _all_of(known[name]) == shown, "the trace is incomplete"
        return known[name]

    return run


def _all_of(trace):
    disk = Disk.of(trace)
    for event in trace.events:
        if isinstance(event, Operation):
            disk.apply(event)
    return disk.files()


def check_state(state, scratch, checking=check):
    """Check one state of the disk. A failure gets a note with the origin of the state."""
    folder = write(state.files, scratch / "left")
    try:
        checking(folder, state.marks)
    except BaseException as failure:
        failure.add_note(f"{state.story}, after {state.marks[-3:]}")
        raise
    finally:
        shutil.rmtree(folder)


def try_states(tried, scratch, rebuilt_one_of=REBUILT_ONE_OF):
    """Check states, and some of them without their catalog."""
    for number, state in enumerate(tried):
        check_state(state, scratch)
        if not number % rebuilt_one_of and any('"point"' in mark for mark in state.marks):
            check_state(state, scratch, check_rebuilt)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_state_loses_acknowledged_data(trace_of, scratch, scenario):
    found = list(states(trace_of(scenario), mixtures=MIXTURES, one_of=ONE_OF))
    assert len(found) > STATES_MIN
    try_states(found, scratch)


@pytest.mark.parametrize("scenario", ["rotation", "rebuild"])
def test_no_rename_takes_effect_too_early(trace_of, scratch, scenario):
    """Tries each rename alone, and all others. An old catalog without its log would lack the last transactions."""
    try_states(states(trace_of(scenario), wanted=lambda story: "the rename" in story), scratch)


@pytest.mark.stress
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_state_loses_acknowledged_data_exhaustively(trace_of, scratch, scenario):
    try_states(states(trace_of(scenario), mixtures=MIXTURES_STRESS), scratch)


@pytest.mark.parametrize("flush", FLUSHES)
def test_a_missing_flush_is_noticed(trace_of, scratch, flush):
    """On a disk without these flushes, the check fails for some state."""
    scenario, is_left_out = FLUSHES[flush]
    tried = states(trace_of(scenario), few=True, without=lambda sync: is_left_out(sync.path))
    with pytest.raises((AssertionError, CryostoreError)):
        try_states(tried, scratch)


def test_a_missing_flush_of_records_is_noticed(trace_of, scratch):
    """Records are needed only if the catalog is lost, too."""
    tried = states(trace_of("jobs"), few=True, without=lambda sync: sync.path.startswith("store/records"))
    with pytest.raises(AssertionError, match="a point is lost"):
        try_states(tried, scratch, rebuilt_one_of=1)

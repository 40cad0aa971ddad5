"""Power loss at any moment of a real process: the store keeps its promise in every state that a file system may leave.

A program does real work on a real store under `strace`. From its system calls, SQLite's included, the test builds every
state of the disk that `support.power.disk` allows. The present code opens each: it must find everything that was
acknowledged byte for byte, nothing partial, and accept another backup. Some are opened without their catalog: the
records beside it must be enough to rebuild it. `make test` tries a part of the states, spread evenly; `make stress`
tries all of them, and many more mixtures.

Leaving out one kind of flush, as if the program did not make it, shows that this test can fail.
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

# What happens if one kind of flush is left out: what is lost then, in which scenario.
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
    """A folder, in memory where there is such a place: the flushes of the tests themselves mean nothing."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def trace_of(scratch):
    """What the program of a scenario did, once for all tests."""
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
            assert _all_of(known[name]) == shown, "the trace tells less than what happened"
        return known[name]

    return run


def _all_of(trace):
    disk = Disk.of(trace)
    for event in trace.events:
        if isinstance(event, Operation):
            disk.apply(event)
    return disk.files()


def look(state, scratch, checking=check):
    """Check one state of the disk; how it came about is a note on what it raises."""
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
        look(state, scratch)
        if not number % rebuilt_one_of and any('"point"' in mark for mark in state.marks):
            look(state, scratch, check_rebuilt)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds_whatever_is_left(trace_of, scratch, scenario):
    found = list(states(trace_of(scenario), mixtures=MIXTURES, one_of=ONE_OF))
    assert len(found) > STATES_MIN
    try_states(found, scratch)


@pytest.mark.parametrize("scenario", ["rotation", "rebuild"])
def test_no_name_takes_the_place_of_another_too_early(trace_of, scratch, scenario):
    """Each renaming by itself, or all but it: an old catalog without its log would be an older one."""
    try_states(states(trace_of(scenario), wanted=lambda story: "the rename" in story), scratch)


@pytest.mark.stress
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds_whatever_is_left_exhaustively(trace_of, scratch, scenario):
    try_states(states(trace_of(scenario), mixtures=MIXTURES_STRESS), scratch)


@pytest.mark.parametrize("flush", FLUSHES)
def test_a_flush_that_is_left_out_is_noticed(trace_of, scratch, flush):
    """The same check, on a disk where these flushes never came: sooner or later it fails."""
    scenario, is_left_out = FLUSHES[flush]
    tried = states(trace_of(scenario), few=True, without=lambda sync: is_left_out(sync.path))
    with pytest.raises((AssertionError, CryostoreError)):
        try_states(tried, scratch)


def test_records_that_are_not_flushed_are_noticed(trace_of, scratch):
    """As above, for what is only needed when the catalog is gone as well."""
    tried = states(trace_of("jobs"), few=True, without=lambda sync: sync.path.startswith("store/records"))
    with pytest.raises(AssertionError, match="a point is lost"):
        try_states(tried, scratch, rebuilt_one_of=1)

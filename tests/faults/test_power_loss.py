"""The power goes at any moment of what a real process does: whatever file systems may leave of it, the promise holds.

A program does real work on a real store under `strace`. From its system calls, SQLite's included, every state of the
disk is built that `power_disk` allows; each is opened by the present code, which must find everything that was
acknowledged byte for byte, nothing that is not whole, and must take another backup. `make test` tries a part of the
states, spread evenly; `make stress` all of them, and many more mixtures.

That this can fail is shown by leaving out one kind of flush, as if the program did not make it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from support.power_check import check
from support.power_disk import Disk, write
from support.power_scenarios import SCENARIOS
from support.power_states import states
from support.power_trace import Operation, require_strace, traced, tree
from support.tree import ROOT

MEMORY = Path("/dev/shm")
STATES_TRIED = 110
MIXTURES, MIXTURES_STRESS = 3, 60
STATES_MIN = 300

# What happens if one kind of flush is left out: what is lost then, in which scenario.
FLUSHES = {
    "the bytes of packs": ("jobs", lambda path: path.endswith(".pack")),
    "the names of packs": ("jobs", lambda path: path.startswith("store/packs/") and not path.endswith(".pack")),
    "the directories of packs": ("jobs", lambda path: path == "store/packs"),
    "the log of the catalog": ("jobs", lambda path: path.endswith("-wal")),
    "the catalog before its log is used again": ("writers", lambda path: path.endswith(".sqlite")),
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
            command = [sys.executable, "-m", "support.power_scenarios", name, str(folder), str(place / "marks")]
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


def look(state, scratch):
    """Check one state of the disk."""
    folder = write(state.files, scratch / "left")
    try:
        check(folder, state.marks)
    finally:
        shutil.rmtree(folder)


def try_states(tried, scratch):
    """Check states; the first that breaks the promise is shown with how it came about."""
    for state in tried:
        try:
            look(state, scratch)
        except BaseException as failure:
            failure.add_note(f"{state.story}, after {state.marks[-3:]}")
            raise


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds_whatever_is_left(trace_of, scratch, scenario):
    found = list(states(trace_of(scenario), mixtures=MIXTURES))
    assert len(found) > STATES_MIN
    try_states(found[:: len(found) // STATES_TRIED], scratch)


@pytest.mark.stress
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_promise_holds_whatever_is_left_exhaustively(trace_of, scratch, scenario):
    try_states(states(trace_of(scenario), mixtures=MIXTURES_STRESS), scratch)


@pytest.mark.parametrize("flush", FLUSHES)
def test_a_flush_that_is_left_out_is_noticed(trace_of, scratch, flush):
    """The same check, on a disk where these flushes never came: sooner or later it fails."""
    scenario, is_left_out = FLUSHES[flush]
    trace = trace_of(scenario)
    tried = states(trace, mixtures=0, without=lambda sync: is_left_out(sync.path))
    telling = [state for state in tried if state.story.endswith((": nothing more", ": names only", ": no names"))]
    with pytest.raises(Exception) as noticed:  # noqa: B017 - however the store or the check notices it
        try_states(telling, scratch)
    print(repr(noticed.value), noticed.value.__notes__)

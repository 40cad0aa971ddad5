"""Faults of single calls during a scrub: no sound chunk is marked as damaged."""

from __future__ import annotations

import contextlib

import pytest

from cryostore.core.errors import CryostoreError, StorageFullError
from cryostore.core.time import HOUR_MS
from support.faults.damaging import damaged, scrubbed, spoil
from support.requests.api import sha
from support.stores.shop import DATA, Shop

SPOILT = {sha(DATA[1]), sha(DATA[4])}


def shop():
    """Return a store with closed packs and two damaged chunks."""
    made = Shop()
    made.close_packs()
    spoil(made.store, DATA[1])
    spoil(made.store, DATA[4])
    return made


def calls(count):
    """Return the number of calls in a scrub without faults. `count` reads it from a process."""
    made = shop()
    before = count(made.process)
    scrubbed(made.context)
    return count(made.process) - before


def scrub_twice(made):
    """Scrub with the planned fault, then without a fault."""
    with contextlib.suppress(CryostoreError):
        scrubbed(made.context)
    assert damaged(made.store) <= SPOILT
    made.process.database.heal()
    made.process.blobs.faults.clear()
    made.store.clock.advance(HOUR_MS)  # a claim that was not released has expired
    outcome = scrubbed(made.context)
    assert (outcome.damaged + outcome.damaged_before, outcome.unreadable) == (2, 0)
    assert damaged(made.store) == SPOILT


@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_write_fails(answer_lost):
    for at in range(1, calls(lambda process: process.database.writes) + 1):
        made = shop()
        made.process.database.fail(at, answer_lost=answer_lost)
        scrub_twice(made)


def test_each_read_fails():
    for at in range(1, calls(lambda process: process.database.reads) + 1):
        made = shop()
        made.process.database.fail(at, kind="read")
        scrub_twice(made)


@pytest.mark.parametrize("error", [None, StorageFullError("full")], ids=["failing", "full"])
@pytest.mark.parametrize("method", ["get", "stat"])
def test_each_call_to_the_blobs_fails(method, error):
    for at in range(1, calls(lambda process: process.blobs.calls.get(method, 0)) + 1):
        made = shop()
        made.process.blobs.fail(method, at, error)
        scrub_twice(made)

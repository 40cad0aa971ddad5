"""Migration of a store in which each call fails once: nothing is lost on either side, and the next run finishes."""

from __future__ import annotations

import pytest

from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.maintenance.migrate.cutover import mark_of
from cryostore.maintenance.migrate.run import plan
from support.stores.pair import Pair, rows


@pytest.fixture
def pair():
    return Pair().live()


def test_all_rows_and_blobs_are_copied_and_the_source_is_closed(pair):
    before = rows(pair.source)
    outcome = pair.move(everything=True)
    assert outcome.is_clean
    assert rows(pair.target) == before == rows(pair.source)
    assert outcome.verified.read == outcome.verified.blobs == outcome.carried.copied > 4
    assert {name: table.rows for name, table in outcome.tables.items()} == {
        name: len(some) for name, some in before.items()
    }
    pair.is_moved()
    assert pair.move().done_before


def calls(pair):
    """Count the calls of a whole move by side and method, of the database and of the blobs."""
    pair.move()
    for name in ("source", "target"):
        side = getattr(pair, name)
        yield from ((name, kind, getattr(side.database, f"{kind}s")) for kind in ("read", "write"))
        yield from ((name, method, count) for method, count in side.blobs.calls.items())


CALLS = list(calls(Pair().live()))


def fails_at(name, method, place, *, answer_lost):
    """Let one call of a move fail. Before the next run, either the source or the target can be used."""
    pair = Pair().live()
    side = getattr(pair, name)
    if method in ("read", "write"):
        side.database.fail(place, kind=method, answer_lost=answer_lost)
    else:
        side.blobs.fail(method, place, answer_lost=answer_lost)
    try:
        pair.move()
    except StorageUnavailableError as error:
        assert side.name in error.message
    pair.heal()
    if pair.source.read(mark_of) is None:
        pair.is_untouched()
    pair.move()
    pair.is_moved()


@pytest.mark.parametrize(("name", "method", "count"), CALLS, ids=[f"{side} {method}" for side, method, _ in CALLS])
def test_any_call_may_fail_and_the_next_run_finishes(name, method, count):
    for turn, place in enumerate(sorted({count // 2 + 1, count})):
        fails_at(name, method, place, answer_lost=bool(turn % 2))


@pytest.mark.stress
@pytest.mark.parametrize("answer_lost", [False, True], ids=["it fails", "its answer is lost"])
@pytest.mark.parametrize(("name", "method", "count"), CALLS, ids=[f"{side} {method}" for side, method, _ in CALLS])
def test_every_call_may_fail_and_the_next_run_finishes(name, method, count, answer_lost):
    for place in range(1, count + 1):
        fails_at(name, method, place, answer_lost=answer_lost)


def test_a_full_disk_is_named_and_the_next_run_continues(pair):
    pair.target.blobs.fail("put", 3, StorageFullError("no space left"))
    with pytest.raises(StorageFullError, match="the new place: no space left") as raised:
        pair.move()
    assert "continues where it stopped" in raised.value.hint
    pair.is_untouched()
    outcome = pair.move()
    assert outcome.carried.known + outcome.carried.copied == outcome.verified.blobs
    pair.is_moved()


def test_blobs_that_were_copied_before_are_not_read_again(pair):
    pair.target.database.fail(pair_writes_until_rows(pair))
    with pytest.raises(StorageUnavailableError):
        pair.move()
    read, put = pair.source.blobs.calls["get"], pair.target.blobs.calls["put"]
    outcome = pair.move()
    assert (outcome.carried.copied, pair.source.blobs.calls["get"], pair.target.blobs.calls["put"]) == (0, read, put)
    pair.is_moved()


def pair_writes_until_rows(pair):
    """Return the number of the first write to the target after all notes of blobs."""
    model = Pair().live()
    model.move()
    return model.target.database.writes - pair.target.database.writes - 2


def test_a_plan_counts_what_would_be_copied(pair):
    found = plan(pair.source)
    assert found.rows == {name: len(some) for name, some in rows(pair.source).items()} | {
        "secret": found.rows["secret"]
    }
    assert found.blobs == pair.move().verified.blobs
    assert found.chunk_bytes == sum(row[5] for row in rows(pair.target)["chunk"])

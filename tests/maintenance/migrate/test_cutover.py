"""Cutover of a migration: which moves may begin or continue. Any other is refused, and nothing changes."""

from __future__ import annotations

import dataclasses

import pytest

from cryostore.core.errors import ConfigurationError, DamagedDataError, StorageUnavailableError
from cryostore.core.ids import counting_ids
from cryostore.maintenance.migrate.cutover import mark_of, take_back_move
from support.stores.memory_store import Process
from support.stores.pair import Pair, rows


@pytest.fixture
def pair():
    return Pair().live()


def begun(pair):
    """Return the pair after an interrupted move."""
    pair.target.blobs.fail("put", 2)
    with pytest.raises(StorageUnavailableError):
        pair.move()
    return pair


def refused(pair, match):
    before = rows(pair.source), rows(pair.target), sorted(pair.there.blobs.list(""))
    with pytest.raises(ConfigurationError, match=match):
        pair.move()
    assert (rows(pair.source), rows(pair.target), sorted(pair.there.blobs.list(""))) == before


def test_a_target_that_is_not_empty_is_refused(pair):
    other = Pair().live()
    pair.target = dataclasses.replace(pair.target, database=other.source.database)
    refused(pair, "already holds a store")
    pair = Pair().live()
    pair.there.blobs.put("records/store/x", b"")
    refused(pair, "already holds the data of a store")


def test_another_store_cannot_continue_a_move(pair):
    begun(pair)
    other = Pair().live()
    other.target, other.there = pair.target, pair.there
    refused(other, "another store is being copied to the new place")
    pair.heal()
    pair.move()
    pair.is_moved()


def test_a_store_that_was_moved_is_not_moved_elsewhere(pair):
    pair.move()
    elsewhere = Pair()
    pair.target = elsewhere.target
    with pytest.raises(ConfigurationError, match="was moved to the new place"):
        pair.move()


def test_an_abandoned_move_cannot_continue_once_the_store_was_moved_elsewhere(pair):
    given_up, elsewhere = begun(pair).target, Pair()
    pair.heal()
    pair.target = dataclasses.replace(elsewhere.target, name="another place")
    pair.move(new_id=counting_ids(7000))
    pair.target = given_up
    with pytest.raises(ConfigurationError, match="was moved to another place"):
        pair.move()
    assert pair.target.read(mark_of).kind == "into"


def test_an_incomplete_copy_is_not_moved(pair):
    begun(pair)
    elsewhere = Pair()
    pair.source, pair.target = pair.target, elsewhere.target
    with pytest.raises(ConfigurationError, match="is the unfinished target of a move from the old place"):
        pair.move()


def test_a_place_that_a_store_was_moved_away_from_is_no_target(pair):
    pair.move()
    other = Pair().live()
    other.target = pair.source
    with pytest.raises(ConfigurationError, match="is a store that was moved to the new place"):
        other.move()


def test_a_store_with_a_writer_is_not_moved():
    pair = Pair().live(settled=False)
    refused(pair, "another process writes to the old place")
    pair.settle()
    pair.move()
    pair.is_moved()


def test_another_schema_version_is_refused(pair):
    pair.there.database.write(lambda transaction: transaction.run("INSERT INTO schema_version (version) VALUES (99)"))
    refused(pair, "has schema version")


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_sessions_of_other_programs_end_the_run(pair, looks):
    """They are seen before anything is marked, before anything is copied, or before the target may be opened."""
    seen = []

    def others():
        seen.append(1)
        if len(seen) == looks + 1:
            raise ConfigurationError("others are there")

    pair.target = dataclasses.replace(pair.target, require_alone=others)
    with pytest.raises(ConfigurationError, match="others are there"):
        pair.move()
    assert pair.source.read(mark_of) is None
    assert (pair.target.read(mark_of) is None) == (looks == 0)
    assert bool(list(pair.there.blobs.list("packs/"))) == (looks == 2)
    pair.move()
    pair.is_moved()


def test_a_store_that_was_taken_back_can_be_used_and_moved_again(pair):
    with pytest.raises(ConfigurationError, match="so there is nothing to take back"):
        take_back_move(pair.source, None)
    pair.move()
    assert take_back_move(pair.source, None) == "the new place"
    assert Process(pair.store)
    pair.store.crash(1.0)
    elsewhere = Pair()
    pair.target, pair.there = elsewhere.target, elsewhere.there
    pair.move()
    pair.is_moved()


def test_a_missing_key_is_reported_and_its_data_is_copied(pair):
    def lose(transaction):
        transaction.run("UPDATE vault_key SET wrapped = :wrapped", wrapped=b"CRYW\x01\x03old" + bytes(60))

    pair.store.database.write(lose)
    outcome = pair.move()
    assert len(outcome.keys_missing) == 1
    assert outcome.keys_missing[0].startswith("vault_key 1: ")
    assert outcome.carried.unjudged
    assert not outcome.is_clean
    assert rows(pair.target) == rows(pair.source)


def test_a_row_that_changes_during_the_move_is_found(pair):
    """Another program writes during the move. The target stays closed, and the next run copies that change too."""

    def write(transaction):
        transaction.run("UPDATE vault SET tags = :tags", tags='{"late": "yes"}')

    steps = pair.steps()
    while next(steps).stage != "verify rows":
        pass
    pair.store.database.write(write)
    with pytest.raises(DamagedDataError, match="table vault is not the same"):
        list(steps)
    assert pair.target.read(mark_of).kind == "into"
    pair.move()
    assert rows(pair.target)["vault"] == rows(pair.source)["vault"]

"""Copy of blobs: damage is copied and reported, a foreign blob stops the run, leftover copies are removed."""

from __future__ import annotations

import errno
import os

import pytest

from cryostore.catalog.rows import records
from cryostore.catalog.rows.records import RecordKey
from cryostore.chunks.packs.format import pack_key
from cryostore.core.errors import ConfigurationError, DamagedDataError, StorageUnavailableError
from cryostore.maintenance.migrate import blobs as migrate_blobs
from cryostore.maintenance.migrate.envelopes import SALVAGED_BYTES
from cryostore.service.recording import write_all_due_records
from support.requests.api import Api
from support.stores.collecting import noise
from support.stores.memory_store import Process
from support.stores.pair import Pair, rows

COVERS = ("maintenance/migrate/envelopes.py",)


@pytest.fixture
def pair():
    return Pair().live()


def packs_with_rows(pair):
    """Return the names of the packs with chunks, and the rows of their chunks, both by pack number."""
    names = {row[0]: row[1] for row in rows(pair.source)["pack"]}
    placed = {}
    for row in rows(pair.source)["chunk"]:
        placed.setdefault(row[3], []).append(row)
    return names, placed


def blob(pair, key):
    return pair.store.blobs._blobs[key]


def damaged(side):
    return {row[1] for row in rows(side)["chunk"] if row[8] is not None}


def test_a_damaged_chunk_is_copied_and_stays_marked(pair):
    names, placed = packs_with_rows(pair)
    number, chunks = max(placed.items(), key=lambda item: len(item[1]))
    hurt = chunks[0]
    blob(pair, pack_key(names[number]))[hurt[4] + 100] ^= 1
    outcome = pair.move(everything=True)
    assert not outcome.is_clean
    assert (outcome.carried.damaged, len(outcome.carried.examples)) == (1, 1)
    assert hurt[1].hex() in outcome.carried.examples[0]
    assert damaged(pair.source) == damaged(pair.target) == {hurt[1]}
    assert pair.there.blobs.get(pack_key(names[number])) == bytes(blob(pair, pack_key(names[number])))
    assert pair.move().done_before


def test_a_single_memory_error_is_read_again(pair):
    """If a bit flips during a read, the envelope is read again, and the copy is right."""
    names, placed = packs_with_rows(pair)
    pair.source.blobs.lie("get", 1, 150)
    assert pair.move(everything=True).is_clean
    pair.is_moved()
    assert names
    assert placed


def test_a_missing_pack_damages_only_its_own_chunks(pair):
    names, placed = packs_with_rows(pair)
    number, chunks = min(placed.items())
    pair.store.blobs.delete(pack_key(names[number]))
    outcome = pair.move()
    assert (outcome.carried.packs_missing, outcome.carried.damaged) == (1, len(chunks))
    assert damaged(pair.target) == {row[1] for row in chunks}


class BadSector:
    """Blobs in which the disk cannot read one range of one blob."""

    def __init__(self, inner, key, start, end):
        self.__dict__.update(vars(inner))
        self.inner, self.key, self.start, self.end = inner, key, start, end

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def get(self, key, offset=0, length=None):
        end = 1 << 60 if length is None else offset + length
        if key == self.key and offset < self.end and end > self.start:
            raise StorageUnavailableError("cannot be read") from OSError(errno.EIO, os.strerror(errno.EIO))
        return self.inner.get(key, offset, length)


def test_the_readable_rest_of_a_bad_blob_is_copied(pair):
    big = Api(Process(pair.store), None, clock=pair.store.clock)
    arn = big.backup({f"big {number}": noise(500 + number, 3 * SALVAGED_BYTES) for number in range(3)})
    pair.settle()
    names, placed = packs_with_rows(pair)
    large = {number: [row for row in some if row[5] > 2 * SALVAGED_BYTES] for number, some in placed.items()}
    number, (hurt, *_) = next((number, some) for number, some in large.items() if some)
    key, place = pack_key(names[number]), hurt[4] + SALVAGED_BYTES
    broken = BadSector(pair.source.blobs.inner, key, place, place + 1)
    pair.source.blobs.inner = broken
    outcome = pair.move()
    assert outcome.carried.damaged == 1
    assert damaged(pair.target) == {hurt[1]}
    there, here = pair.there.blobs.get(key), bytes(blob(pair, key))
    assert [byte for byte in range(len(here)) if here[byte] != there[byte]][-1] - place < SALVAGED_BYTES
    assert there[: place - SALVAGED_BYTES] == here[: place - SALVAGED_BYTES]
    assert arn


def test_an_outage_does_not_count_as_a_bad_sector(pair):
    pair.source.blobs.fail("get", 1)
    with pytest.raises(StorageUnavailableError, match="the old place"):
        pair.move()
    pair.move()
    pair.is_moved()


@pytest.mark.parametrize("how", ["missing", "flipped"])
def test_a_bad_record_is_reported_by_later_runs_too(pair, how):
    key = next(iter(pair.store.blobs.list("records/commit/")))
    if how == "missing":
        pair.store.blobs.delete(key)
    else:
        blob(pair, key)[120] ^= 1
    pair.target.blobs.fail("stat", pair_stats(pair))
    with pytest.raises(StorageUnavailableError):
        pair.move()
    outcome = pair.move()
    assert outcome.carried.records_bad == 1
    assert outcome.carried.examples[0].startswith(key)
    assert not outcome.is_clean


def pair_stats(pair):
    """Return how often a move looks up a size in the target, less one: all is copied, and one blob not verified."""
    model = Pair().live()
    model.move()
    return model.target.blobs.calls["stat"] - 1


def test_after_a_kill_only_blobs_in_flight_are_copied_again(pair, monkeypatch):
    """The notes of copied blobs are written during the run, long before the limit of bytes in memory is reached."""
    monkeypatch.setattr(migrate_blobs, "NOTED_BYTES", 1)
    monkeypatch.setattr(migrate_blobs, "WORKERS", 1)
    put = []

    def kill():
        put.append(None)
        if len(put) == 4:
            raise KeyboardInterrupt

    pair.target.blobs.on("put", kill)
    with pytest.raises(KeyboardInterrupt):
        pair.move()
    pair.heal()
    carried = pair.move().carried
    assert carried.known == 3
    assert carried.copied > 3
    pair.is_moved()


def test_a_foreign_blob_stays_and_ends_the_run(pair):
    names, placed = packs_with_rows(pair)
    key = pack_key(names[min(placed)])
    pair.target.blobs.on("put", lambda: None)
    pair.target.database.fail(2)
    with pytest.raises(StorageUnavailableError):
        pair.move()
    pair.target.blobs.inner.put(key, b"not ours")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="has another blob at"):
            pair.move()
    assert pair.there.blobs.get(key) == b"not ours"
    pair.there.blobs.delete(key)
    pair.move()
    pair.is_moved()


def test_an_existing_blob_with_the_same_bytes_is_accepted(pair):
    names, placed = packs_with_rows(pair)
    key = pack_key(names[min(placed)])
    pair.target.database.fail(2)
    with pytest.raises(StorageUnavailableError):
        pair.move()
    pair.target.blobs.inner.put(key, bytes(blob(pair, key)))
    assert pair.move().is_clean
    pair.is_moved()


def test_a_blob_that_rots_in_the_target_is_found_and_copied_again(pair):
    names, placed = packs_with_rows(pair)
    key = pack_key(names[min(placed)])
    pair.target.database.fail(pair_writes(pair))
    with pytest.raises(StorageUnavailableError):
        pair.move()
    pair.there.blobs._blobs[key][60] ^= 1
    with pytest.raises(DamagedDataError, match="has other bytes"):
        pair.move(everything=True)
    assert pair.move(everything=True).carried.copied == 1
    pair.is_moved()


@pytest.mark.parametrize("how", ["missing", "short"])
def test_a_blob_that_vanishes_during_verification_is_found(pair, how):
    names, placed = packs_with_rows(pair)
    key = pack_key(names[min(placed)])

    def spoil():
        blobs = pair.there.blobs._blobs
        blobs.pop(key) if how == "missing" else blobs[key].pop()

    steps = iter(pair.steps())
    while next(steps).stage != "verify rows":
        pass
    spoil()
    with pytest.raises(DamagedDataError, match=f"{key} (is missing|has)"):
        list(steps)
    assert pair.move().carried.copied == 1
    pair.is_moved()


def pair_writes(pair):
    """Return the number of the last write to the target, which lets it be opened."""
    model = Pair().live()
    model.move()
    return model.target.database.writes - pair.target.database.writes


def test_blobs_that_the_source_no_longer_has_are_removed_from_the_target(pair):
    """The record of a point that was deleted between two runs, and packs that were collected."""
    pair.target.database.fail(pair_writes(pair))
    with pytest.raises(StorageUnavailableError):
        pair.move()
    pair.go_on()
    outcome = pair.move()
    assert outcome.carried.removed
    assert sorted(pair.there.blobs.list("")) == sorted(key for key in pair.store.blobs.list(""))
    pair.is_moved()


def test_a_copied_pack_stays_when_the_source_loses_it(pair):
    names, placed = packs_with_rows(pair)
    pair.target.database.fail(pair_writes(pair))
    with pytest.raises(StorageUnavailableError):
        pair.move()
    pair.store.blobs.delete(pack_key(names[min(placed)]))
    assert pair.move(everything=True).is_clean
    pair.is_moved()


def test_a_record_that_is_being_removed_is_not_reported_as_missing(pair):
    """Its blob may already be gone, and its row is removed in the target."""

    def end(transaction):
        row = transaction.row("SELECT number, generation FROM record WHERE noun = 'commit' LIMIT 1")
        records.end(transaction, RecordKey("commit", *row))
        return f"records/commit/{row[0]:019d}.{row[1]:019d}"

    prefix = pair.store.database.write(end)
    for key in list(pair.store.blobs.list(prefix)):
        pair.store.blobs.delete(key)
    outcome = pair.move()
    assert outcome.carried.records_bad == 0
    assert outcome.records_due == 1
    process = Process(pair.there)
    write_all_due_records(process.context)
    assert rows(pair.target)["record"] != rows(pair.source)["record"]

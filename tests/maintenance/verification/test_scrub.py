"""A scrub finds and marks damaged chunks and leaves everything else alone; an upload repairs them."""

from __future__ import annotations

import itertools

import pytest

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.catalog.rows import packs
from cryostore.chunks.envelope import FIELDS, HEADER_BYTES
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, pack_key
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance.claims import this_process
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from cryostore.model.chunks import GetChunk, LinkChunks, LinkedChunk
from cryostore.model.errors import DamagedDataException
from support.faults.damaging import blob, damaged, hurt, noise, row_of, scrubbed, spoil
from support.requests.api import Api, hex_of, new_resource, sha
from support.stores import audit
from support.stores.collecting import Scene
from support.stores.memory_store import Process
from support.stores.shop import DATA, Shop

# the first byte of each field of the header, then of the ciphertext and the tag
FIELD_PLACES = {
    "magic": 0, "version": 4, "kind": 5, "codec": 6, "flags": 7, "key id": 8, "salt": 24, "nonce": 40,
    "masked digest": 52, "payload length": 84, "sealed length": 88, "check": 92, "ciphertext": 96, "tag": -1,
}  # fmt: skip


@pytest.fixture
def shop():
    return Shop()


def test_the_places_match_the_fields_of_the_format():
    assert FIELDS.size == FIELD_PLACES["check"]
    assert FIELD_PLACES["ciphertext"] == HEADER_BYTES


def test_a_sound_store_is_clean(shop):
    shop.close_packs()
    outcome = scrubbed(shop.context)
    assert outcome.is_clean
    assert (outcome.packs, outcome.chunks) == (2, 6)
    assert hurt(shop.context) == {}


@pytest.mark.parametrize("place", FIELD_PLACES.values(), ids=FIELD_PLACES)
def test_a_flipped_bit_anywhere_in_an_envelope_is_found(shop, place):
    spoil(shop.store, DATA[1], place)
    outcome = scrubbed(shop.context)
    assert (outcome.damaged, outcome.chunks, outcome.unreadable) == (1, 6, 0)
    assert damaged(shop.store) == {sha(DATA[1])}
    assert hurt(shop.context) == {shop.point: ["object 1"]}
    again = scrubbed(shop.context)
    assert (again.damaged, again.damaged_before) == (0, 1)


def test_damage_outside_envelopes_affects_nothing(shop):
    """Only people and `cryo repair` need the header of a pack; no reader does."""
    for name in shop.store.pack_names():
        blob(shop.store, name)[:PACK_HEADER_BYTES] = bytes(PACK_HEADER_BYTES)
    assert scrubbed(shop.context).is_clean


def test_a_missing_pack_damages_all_of_its_chunks(shop):
    name = row_of(shop.store, DATA[0]).pack_name
    shop.store.blobs.delete(pack_key(name))
    outcome = scrubbed(shop.context)
    assert (outcome.damaged, outcome.packs_missing) == (3, 1)
    assert hurt(shop.context) == {shop.point: ["object 0", "object 1", "object 2"]}


def test_a_truncated_pack_damages_only_the_chunks_that_it_lacks(shop):
    row = row_of(shop.store, DATA[2])
    del blob(shop.store, row.pack_name)[row.pack_offset + 5 :]
    assert scrubbed(shop.context).damaged == 1
    assert damaged(shop.store) == {sha(DATA[2])}


def test_a_zeroed_area_damages_only_the_chunks_that_it_covers(shop):
    first, second = row_of(shop.store, DATA[0]), row_of(shop.store, DATA[1])
    data = blob(shop.store, first.pack_name)
    data[first.pack_offset + 150 : second.pack_offset + 10] = bytes(second.pack_offset - first.pack_offset - 140)
    scrubbed(shop.context)
    assert damaged(shop.store) == {sha(DATA[0]), sha(DATA[1])}


def test_an_envelope_of_another_vault_with_the_same_bytes_is_damage(shop):
    """The place of an envelope holds a sound envelope of another vault."""
    shop.api.new_vault()
    other = Api(shop.process, None, clock=shop.store.clock)
    other.vault = shop.api.vault
    other.backup({"theirs": DATA[0]})
    mine, theirs = row_of(shop.store, DATA[0]), row_of(shop.store, DATA[0], vault_id=2)
    envelope = blob(shop.store, theirs.pack_name)[theirs.pack_offset :][: theirs.sealed_length]
    blob(shop.store, mine.pack_name)[mine.pack_offset :][: mine.sealed_length] = envelope
    blob(shop.store, mine.pack_name)[mine.pack_offset : mine.pack_offset + mine.sealed_length] = envelope
    assert scrubbed(shop.context).damaged == 1
    assert hurt(shop.context) == {shop.point: ["object 0"]}


@pytest.mark.parametrize("name", ["object 1", "new"])
def test_an_upload_of_the_same_bytes_repairs_a_damaged_chunk(shop, name):
    spoil(shop.store, DATA[1])
    scrubbed(shop.context)
    shop.api.refuses(DamagedDataException, token_of(shop.api, shop.point, "object 1"))
    shop.api.backup({name: DATA[1]}, resource=new_resource())
    assert damaged(shop.store) == set()
    assert shop.api.restored(shop.point) == shop.contents
    assert scrubbed(shop.context).is_clean
    assert audit.problems(shop.context, shop.store.database) == []


def token_of(api, point, name):
    """Return the token of the only chunk of an object, in a restore job that stays open."""
    job = api.restore(point)
    (chunk,) = api.chunks(job, name)
    return GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token)


def test_a_damaged_chunk_is_repaired_by_a_put_and_requested_by_a_link(shop):
    spoil(shop.store, DATA[1])
    scrubbed(shop.context)
    job = shop.api.start_job(resource=new_resource())
    upload = shop.api.start(job, "again")
    chunk = LinkedChunk(index=0, length=len(DATA[1]), checksum=hex_of(DATA[1]), checksum_algorithm="SHA256")
    link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[chunk])
    assert shop.api.call(link).missing == [0]
    shop.api.chunk(job, upload, 0, DATA[1])
    assert shop.api.call(link).missing == []
    assert shop.api.restored(shop.point) == shop.contents


def test_a_read_marks_damage_and_an_upload_repairs_it(shop):
    spoil(shop.store, DATA[4])
    read = token_of(shop.api, shop.point, "object 4")
    shop.api.refuses(DamagedDataException, read)
    assert damaged(shop.store) == {sha(DATA[4])}
    shop.api.backup({"object 4": DATA[4]})
    assert bytes(shop.api.call(read).data.data) == DATA[4]


def test_damaged_metadata_is_an_error_and_is_marked_and_reported(shop):
    blob_bytes = noise(77)
    job = shop.api.start_job(resource=new_resource())
    shop.api.upload(job, "with blob", [DATA[0]], blob=blob_bytes)
    point = shop.api.commit(job)
    spoil(shop.store, blob_bytes)
    restore = shop.api.restore(point)
    with pytest.raises(DamagedDataException):
        shop.api.metadata(restore, "with blob")
    assert damaged(shop.store) == {sha(blob_bytes)}
    assert hurt(shop.context) == {point: ["with blob"]}


@pytest.mark.parametrize("why", ["the disk", "the key", "the catalog"])
def test_a_read_that_fails_for_another_reason_marks_nothing(shop, why, monkeypatch):
    spoil(shop.store, DATA[4])
    read = token_of(shop.api, shop.point, "object 4")
    if why == "the disk":
        shop.process.blobs.fail("get")
    elif why == "the key":
        shop.process = Process(shop.store)
        monkeypatch.setattr(shop.store.keyring, "_key", shop.store.keyring._key.__class__("another", bytes(32)))
        shop.api._call = shop.process
    else:
        shop.process.database.fail(1)
    with pytest.raises(Exception, match=r"storage|key|damaged"):
        shop.api.call(read)
    assert damaged(shop.store) == set()


def test_a_missing_key_is_no_damage(shop, monkeypatch):
    shop.close_packs()
    process = Process(shop.store)
    monkeypatch.setattr(shop.store.keyring, "_key", shop.store.keyring._key.__class__("another", bytes(32)))
    outcome = scrubbed(process.context)
    assert (outcome.no_key, outcome.damaged, outcome.packs) == (6, 0, 0)
    assert not outcome.is_clean
    assert damaged(shop.store) == set()


def test_an_unreachable_disk_is_no_damage(shop):
    shop.close_packs()
    for at in range(1, 20):
        shop.process.blobs.fail("get", at)
    outcome = scrubbed(shop.context)
    assert (outcome.unreadable, outcome.damaged, outcome.packs) == (6, 0, 0)
    assert damaged(shop.store) == set()
    shop.process.blobs.faults.clear()
    assert scrubbed(shop.context).is_clean


def test_bytes_that_are_wrong_once_are_read_again(shop, monkeypatch):
    """A bit flips during the transfer, not on the disk."""
    get, calls = shop.process.blobs.get, itertools.count()

    def wrong_once(key, offset=0, length=None):
        data = bytearray(get(key, offset, length))
        if next(calls) == 0:
            data[150] ^= 1
        return bytes(data)

    monkeypatch.setattr(shop.process.blobs, "get", wrong_once)
    assert scrubbed(shop.context).is_clean


def test_marks_are_removed_when_the_disk_is_back(shop):
    name = row_of(shop.store, DATA[0]).pack_name
    away = shop.store.blobs._blobs.pop(pack_key(name))
    assert scrubbed(shop.context).damaged == 3
    shop.store.blobs._blobs[pack_key(name)] = away
    assert scrubbed(shop.context).sound_again == 3
    assert damaged(shop.store) == set()
    assert hurt(shop.context) == {}


def test_the_least_recently_verified_packs_come_first_over_several_runs(shop):
    shop.close_packs()
    verified = set()
    for _ in range(4):
        before = times(shop)
        assert scrubbed(shop.context, share=0.5).packs == 1
        shop.store.clock.advance(1000)
        changed = {name for name, when in times(shop).items() if when != before[name]}
        assert all(before[name] == min(before.values()) for name in changed)
        verified |= changed
    assert verified == set(shop.store.pack_names())
    assert scrubbed(shop.context, verified_before_ms=shop.store.clock() - DAY_MS).packs == 0
    assert scrubbed(shop.context, seconds_max=0).packs == 1


def times(shop):
    """Return the time at which each pack was last verified."""
    return dict(shop.store.database.read(lambda transaction: transaction.rows("SELECT name, verified_ms FROM pack")))


def test_an_open_pack_is_read_but_not_recorded_as_verified(shop):
    ended, written_to = shop.store.pack_names()
    assert shop.store.database.read(packs.open_packs) == [written_to]
    assert scrubbed(shop.context).chunks == 6
    assert times(shop) == {ended: shop.store.clock(), written_to: 0}


def test_a_pack_with_a_bad_sector_is_read_around_it_and_not_recorded_as_verified(shop, monkeypatch):
    shop.close_packs()
    row = row_of(shop.store, DATA[1])
    get = shop.process.blobs.get

    def failing(key, offset=0, length=None):
        if row.pack_name in key and offset <= row.pack_offset < offset + length:
            raise StorageUnavailableError("a bad sector")
        return get(key, offset, length)

    monkeypatch.setattr(shop.process.blobs, "get", failing)
    outcome = scrubbed(shop.context)
    assert (outcome.unreadable, outcome.damaged, outcome.packs) == (1, 0, 1)
    assert times(shop)[row.pack_name] == 0


def test_no_step_of_a_collection_looks_like_damage():
    """Between any two steps of a scrub, a whole collection moves rows and deletes packs."""
    for count in itertools.count():
        scene = Scene()
        outcome = ScrubResult()
        steps = scrub(scene.writer.context, outcome)
        taken = list(itertools.islice(steps, count))
        scene.close_packs()
        collect_all(scene.collector.context, quarantine_ms=0)
        list(steps)
        assert (outcome.damaged, outcome.unreadable) == (0, 0)
        assert audit.problems(scene.writer.context, scene.store.database) == []
        if len(taken) < count:
            break


@pytest.mark.parametrize("meanwhile", ["moved", "healed", "collected"])
def test_a_row_that_changes_between_the_read_and_the_mark_is_not_marked(meanwhile):
    """The scrub has read the damage. Before it marks the row, the row points elsewhere."""
    shop = Shop()
    shop.close_packs()
    other = Process(shop.store)
    api = Api(other, None, clock=shop.store.clock)
    keep = bytes(blob(shop.store, row_of(shop.store, DATA[1]).pack_name))
    spoil(shop.store, DATA[1])

    def change():
        shop.process.database.on_write(None)
        if meanwhile == "collected":
            api.delete_point(shop.point)
            collect_all(other.context, quarantine_ms=0)
            collect_all(other.context, quarantine_ms=0)
            return
        if meanwhile == "healed":
            other_row = row_of(shop.store, DATA[1])
            mark = "UPDATE chunk SET damaged_ms = 1 WHERE digest = :digest"
            shop.store.database.write(lambda transaction: transaction.run(mark, digest=sha(DATA[1])))
            api.backup({"x": DATA[1]}, resource=new_resource())
            assert row_of(shop.store, DATA[1]) != other_row
            return
        place = row_of(shop.store, DATA[1])
        location = other.context.store.append([keep[place.pack_offset : place.pack_offset + place.sealed_length]])[0]
        shop.store.database.write(lambda transaction: move(transaction, DATA[1], location))

    shop.process.database.on_write(change)
    outcome = scrubbed(shop.context)
    assert outcome.damaged == 0
    assert damaged(shop.store) == set()


def move(transaction, data, location):
    """Point the row of a chunk elsewhere."""
    name = location.pack_id
    transaction.run("INSERT INTO pack (name, open, created_ms) VALUES (:n, 1, 0) ON CONFLICT (name) DO NOTHING", n=name)
    transaction.run(
        "UPDATE chunk SET pack_number = (SELECT pack_number FROM pack WHERE name = :name), pack_offset = :offset"
        " WHERE digest = :digest",
        name=name,
        offset=location.offset,
        digest=sha(data),
    )


def test_a_chunk_that_is_repaired_between_a_read_and_its_mark_stays_sound(shop):
    spoil(shop.store, DATA[4])
    read = token_of(shop.api, shop.point, "object 4")
    other = Api(Process(shop.store), None, clock=shop.store.clock)

    def heal():
        shop.process.database.on_write(None)
        mark = "UPDATE chunk SET damaged_ms = 1 WHERE digest = :digest"
        shop.store.database.write(lambda transaction: transaction.run(mark, digest=sha(DATA[4])))
        other.backup({"again": DATA[4]}, resource=new_resource())

    shop.process.database.on_write(heal)
    shop.api.refuses(DamagedDataException, read)
    assert damaged(shop.store) == set()
    assert bytes(shop.api.call(read).data.data) == DATA[4]


def test_one_scrub_at_a_time(shop):
    """The second gets an error that names the first. It can scrub once the first has ended or was interrupted."""
    shop.close_packs()
    other = Process(shop.store)
    first = scrub(shop.context, ScrubResult())
    next(first)
    with pytest.raises(ClaimHeldError) as held:
        scrubbed(other.context)
    assert held.value.message == f"scrub is done by {this_process()} since 2023-11-14T22:13:20.000Z"
    first.close()
    assert scrubbed(other.context).packs == 2


def test_a_scrub_that_lost_its_claim_marks_nothing(shop):
    """It is suspended after reading; another scrub finds the damage, and an upload repairs it."""
    shop.close_packs()
    spoil(shop.store, DATA[1])
    other = Process(shop.store)
    found = []

    def stall():
        shop.process.database.on_write(None)
        shop.store.clock.advance(HOUR_MS)
        found.append(scrubbed(other.context))
        Api(other, None, clock=shop.store.clock).backup({"again": DATA[1]}, resource=new_resource())

    outcome = ScrubResult()
    first = scrub(shop.context, outcome)
    shop.process.database.on_write(lambda: shop.process.database.on_write(stall))  # after it has claimed the work
    with pytest.raises(ClaimLostError, match="stood still"):
        list(first)
    assert (found[0].packs, found[0].damaged, outcome.damaged) == (2, 1, 0)
    assert damaged(shop.store) == set()


def test_the_rows_of_a_deleted_vault_need_no_key(shop):
    """Such rows exist until the background tasks remove them."""
    shop.close_packs()
    shop.store.database.write(lambda transaction: transaction.run("UPDATE chunk SET vault_id = 77, key_number = 77"))
    outcome = scrubbed(shop.context)
    assert (outcome.no_key, outcome.damaged) == (0, 0)

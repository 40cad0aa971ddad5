"""The writer of growing packs: shared flushes, new packs, and every failure of an append or a flush."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.packs import writer as pack_writer
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, decode_header, list_packs, pack_key
from cryostore.chunks.packs.growing import GrowingPackWriter
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.core.ids import counting_ids
from support.faults.faulty_blobs import FaultyBlobs
from support.waiting import until_gathering

COVERS = ("chunks/packs/writer.py",)


SMALL, LARGE = 100, pack_writer.EAGER_BYTES_MIN


@pytest.fixture
def blobs():
    return FaultyBlobs(MemoryBlobs())


@pytest.fixture
def writer(blobs):
    return GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=10_000)


def packs(blobs):
    return {pack_id: blobs.inner.get(pack_key(pack_id)) for pack_id in list_packs(blobs.inner)}


def stored(blobs, location):
    return blobs.inner.get(pack_key(location.pack_id), location.offset, location.length)


def test_envelopes_are_contiguous(writer, blobs):
    locations = [writer.append(bytes([number]) * SMALL) for number in range(5)]
    assert [location.offset for location in locations] == [PACK_HEADER_BYTES + SMALL * number for number in range(5)]
    assert len({location.pack_id for location in locations}) == 1
    assert [stored(blobs, location) for location in locations] == [bytes([number]) * SMALL for number in range(5)]
    (content,) = packs(blobs).values()
    assert decode_header(content) == locations[0].pack_id


def test_a_returned_location_is_durable(writer, blobs):
    for number in range(1, 4):
        writer.append(b"x" * SMALL)
        assert blobs.calls["sync"] == number


def test_no_pack_is_created_before_the_first_append(writer, blobs):
    writer.close()
    assert packs(blobs) == {}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_full_pack_is_closed_and_a_new_one_is_begun(blobs, size):
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=3 * size)
    locations = [writer.append(bytes([number]) * size) for number in range(7)]
    per_pack = [len(content) for content in packs(blobs).values()]
    assert per_pack == [PACK_HEADER_BYTES + size * count for count in (3, 3, 1)]
    assert [stored(blobs, location)[0] for location in locations] == list(range(7))
    assert [blobs.owned(pack_key(pack_id)) for pack_id in packs(blobs)] == [False, False, True]
    writer.close()
    assert not any(blobs.owned(pack_key(pack_id)) for pack_id in packs(blobs))


def test_finished_packs_are_returned_once(blobs):
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=2 * SMALL)
    locations = [writer.append(bytes(SMALL)) for _ in range(5)]
    first, second, third = dict.fromkeys(location.pack_id for location in locations)
    assert writer.take_whole() == [first, second]
    writer.close()
    assert writer.take_whole() == [third]
    assert writer.take_whole() == []


@pytest.mark.parametrize("method", ["append", "sync"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_finished_pack_is_sound_to_its_last_byte(blobs, method, at, size):
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=3 * size)
    blobs.fail(method, at=at, torn_bytes=7)
    ends = {}
    for _ in range(7):
        with suppress(StorageUnavailableError):
            location = writer.append(bytes(size))
            ends[location.pack_id] = location.offset + location.length
    writer.close()
    whole = writer.take_whole()
    assert len(packs(blobs).keys() - whole) <= 1  # the pack of the fault, if it was not removed
    assert all(len(packs(blobs)[pack_id]) == ends[pack_id] for pack_id in whole)


def test_a_closed_writer_refuses_envelopes(writer):
    writer.append(b"x")
    writer.close()
    writer.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        writer.append(b"x")


def in_threads(writer, envelopes):
    """Append all at the same time; return the location or error of each envelope, and the number of flushes."""
    outcomes = [None] * len(envelopes)

    def append(index):
        try:
            outcomes[index] = writer.append(envelopes[index])
        except StorageUnavailableError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=append, args=(index,)) for index in range(len(envelopes))]
    for thread in threads:
        thread.start()
    return threads, outcomes


class Held:
    """Blocks a flush until the test releases it."""

    def __init__(self, blobs):
        self.began, self.may_end = threading.Event(), threading.Event()
        blobs.on("sync", self)

    def __call__(self):
        self.began.set()
        assert self.may_end.wait(30)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_all_waiting_threads_share_one_flush(blobs, size):
    """Twenty envelopes that arrive during a flush share the next one."""
    writer = GrowingPackWriter(blobs, counting_ids())
    held = Held(blobs)
    first, first_outcome = in_threads(writer, [b"f" * SMALL])
    assert held.began.wait(30)
    others, outcomes = in_threads(writer, [bytes([number]) * size for number in range(20)])
    until_gathering(writer._flushes, 20)
    assert first_outcome == [None]
    assert outcomes == [None] * 20
    held.may_end.set()
    for thread in first + others:
        thread.join(30)
    assert blobs.calls["sync"] == 2
    assert [stored(blobs, location) for location in outcomes] == [bytes([number]) * size for number in range(20)]
    # the header and the first, then the small ones together, or each large one by itself
    assert blobs.calls["append"] == 2 + (1 if size == SMALL else 20)


def test_large_envelopes_are_written_while_a_flush_runs(blobs):
    writer = GrowingPackWriter(blobs, counting_ids())
    held = Held(blobs)
    threads, _ = in_threads(writer, [b"f" * SMALL])
    assert held.began.wait(30)
    more, outcomes = in_threads(writer, [b"L" * LARGE])
    until_gathering(writer._flushes, 1)
    (content,) = packs(blobs).values()
    assert len(content) == PACK_HEADER_BYTES + SMALL + LARGE
    assert outcomes == [None], "written bytes are not durable yet"
    held.may_end.set()
    for thread in threads + more:
        thread.join(30)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_new_pack_during_a_flush_leads_to_a_flush_of_both(blobs, size):
    """Envelopes of one batch are in different packs. Each is durable before its location is returned."""
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=size + PACK_HEADER_BYTES)
    held = Held(blobs)
    first, _ = in_threads(writer, [b"f" * size])
    assert held.began.wait(30)
    others, outcomes = in_threads(writer, [bytes([number]) * size for number in range(3)])
    until_gathering(writer._flushes, 3)
    held.may_end.set()
    for thread in first + others:
        thread.join(30)
    assert sorted(stored(blobs, location)[0] for location in outcomes) == [0, 1, 2]
    writer.close()
    assert not any(blobs.owned(pack_key(pack_id)) for pack_id in packs(blobs))
    assert blobs.calls["sync"] >= len(packs(blobs))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_full_disk_fails_the_append_and_finishes_the_pack(writer, blobs, size):
    before = writer.append(b"b" * SMALL)
    blobs.fail("append", error=StorageFullError("no space", hint="free some"))
    with pytest.raises(StorageFullError) as caught:
        writer.append(b"f" * size)
    assert caught.value.hint == "free some"
    assert not blobs.owned(pack_key(before.pack_id))
    after = writer.append(b"a" * size)
    assert after.pack_id != before.pack_id
    assert stored(blobs, before) + stored(blobs, after) == b"b" * SMALL + b"a" * size


def test_attempts_on_a_full_disk_leave_at_most_one_empty_pack(writer, blobs):
    for _ in range(3):
        blobs.fail("append", at=1 if list(blobs.list("packs/")) else 2, error=StorageFullError("no space"))
        with pytest.raises(StorageFullError):
            writer.append(b"f" * SMALL)
    (key,) = blobs.list("packs/")
    assert blobs.owned(key)
    assert pack_key(writer.append(b"a" * SMALL).pack_id) == key


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("torn_bytes", [0, 1, 50])
def test_a_failed_write_abandons_the_pack(writer, blobs, size, torn_bytes):
    before = writer.append(b"b" * SMALL)
    blobs.fail("append", torn_bytes=torn_bytes)
    with pytest.raises(StorageUnavailableError):
        writer.append(b"f" * size)
    assert not blobs.owned(pack_key(before.pack_id))
    after = writer.append(b"a" * size)
    assert after.pack_id != before.pack_id
    assert stored(blobs, before) + stored(blobs, after) == b"b" * SMALL + b"a" * size


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_failed_flush_abandons_the_pack_and_is_never_repeated(writer, blobs, size):
    before = writer.append(b"b" * SMALL)
    blobs.fail("sync")
    with pytest.raises(StorageUnavailableError):
        writer.append(b"f" * size)
    assert not blobs.owned(pack_key(before.pack_id))
    syncs = blobs.calls["sync"]
    after = writer.append(b"a" * size)
    assert blobs.calls["sync"] == syncs + 1
    assert after.pack_id != before.pack_id
    assert stored(blobs, before) + stored(blobs, after) == b"b" * SMALL + b"a" * size


def test_a_failed_flush_fails_every_append_that_it_should_have_covered(blobs):
    """They are ten small envelopes in the batch, and large ones that were written before the flush failed."""
    writer = GrowingPackWriter(blobs, counting_ids())
    before = writer.append(b"b" * SMALL)
    held = Held(blobs)
    first, first_outcome = in_threads(writer, [b"f" * SMALL])
    assert held.began.wait(30)
    others, outcomes = in_threads(writer, [b"s" * SMALL] * 10 + [b"L" * LARGE] * 3)
    until_gathering(writer._flushes, 13)
    blobs.fail("sync")
    held.may_end.set()
    for thread in first + others:
        thread.join(30)
    assert first_outcome[0].pack_id == before.pack_id, "the running flush had begun before"
    assert [type(outcome) for outcome in outcomes] == [StorageUnavailableError] * 13
    assert len({id(outcome) for outcome in outcomes}) == 13, "each thread has its own exception"
    assert writer.append(b"a").pack_id != before.pack_id


def test_a_failed_flush_also_fails_a_large_envelope_written_meanwhile(blobs):
    """The envelope was written while the flush ran. Its own flush must not trust the pack."""
    writer = GrowingPackWriter(blobs, counting_ids())
    held = Held(blobs)
    blobs.fail("sync")
    first, first_outcome = in_threads(writer, [b"f" * SMALL])
    assert held.began.wait(30)
    others, outcomes = in_threads(writer, [b"L" * LARGE])
    until_gathering(writer._flushes, 1)
    held.may_end.set()
    for thread in first + others:
        thread.join(30)
    assert [type(outcome) for outcome in first_outcome + outcomes] == [StorageUnavailableError] * 2
    assert blobs.calls["sync"] == 1


@pytest.mark.parametrize("method", ["open_append", "append"])
@pytest.mark.parametrize("kind", [StorageFullError, StorageUnavailableError])
def test_a_pack_that_cannot_be_begun_is_removed(writer, blobs, method, kind):
    """Otherwise a full disk would collect empty packs."""
    for _ in range(3):
        blobs.fail(method, error=kind("no"))
        with pytest.raises(kind):
            writer.append(b"x" * SMALL)
    assert packs(blobs) == {}
    assert stored(blobs, writer.append(b"y" * SMALL)) == b"y" * SMALL


def test_every_error_of_the_store_becomes_unavailable(writer, blobs):
    """If the data directory is removed, for example, BlobNotFoundError would not help a caller that appends."""
    blobs.inner.put(pack_key(counting_ids()()), b"taken")
    with pytest.raises(StorageUnavailableError, match="exists"):
        writer.append(b"x")
    assert writer.append(b"x").offset == PACK_HEADER_BYTES


@pytest.mark.parametrize("method", ["append", "sync", "open_append"])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_fault_at_any_call_loses_no_acknowledged_envelope(blobs, method, at):
    """Each append or flush fails in turn. Exactly one put is refused, and all others are whole."""
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=500)
    blobs.fail(method, at, torn_bytes=17)
    acknowledged, refused = {}, 0
    for number in range(12):
        try:
            acknowledged[writer.append(bytes([number]) * SMALL)] = bytes([number]) * SMALL
        except StorageUnavailableError:
            refused += 1
    assert refused == (0 if (method, at) in blobs.faults else 1)
    assert len(acknowledged) == 12 - refused
    for location, envelope in acknowledged.items():
        assert stored(blobs, location) == envelope


def test_many_threads_write_many_sizes_to_files(tmp_path):
    """Eight threads write small and large envelopes to many packs. Each one is at its location."""
    blobs = LocalBlobs(tmp_path)
    writer = GrowingPackWriter(blobs, counting_ids(), pack_bytes_target=2_000_000)
    envelopes = [bytes([number]) * (SMALL * number if number % 8 else LARGE + number) for number in range(200)]
    found = {}

    def work(start):
        for number in range(start, len(envelopes), 8):
            found[number] = writer.append(envelopes[number])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    for number, location in found.items():
        assert blobs.get(pack_key(location.pack_id), location.offset, location.length) == envelopes[number]
    assert len(found) == 200
    assert not any(blobs.owned(pack_key(pack_id)) for pack_id in list_packs(blobs))
    blobs.close()

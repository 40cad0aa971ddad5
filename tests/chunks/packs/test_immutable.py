"""The writer of immutable packs: which envelopes share a put, which are put at once, and which fail together."""

from __future__ import annotations

import threading

import pytest

from cryostore.chunks.blobs import Appendable
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, decode_header, list_packs, pack_key
from cryostore.chunks.packs.immutable import HALF_PUTS_MAX, SMALL_PUTS_MAX, WHOLE_BYTES_MIN, ImmutablePackWriter
from cryostore.chunks.packs.writer import EAGER_BYTES_MIN
from cryostore.core.errors import BlobExistsError, StorageFullError, StorageUnavailableError
from cryostore.core.ids import counting_ids
from support.faults.faulty_blobs import FaultyObjects
from support.waiting import until, until_gathering

SMALL, HALF, LARGE = 100, EAGER_BYTES_MIN, WHOLE_BYTES_MIN


@pytest.fixture
def blobs():
    blobs = FaultyObjects(MemoryBlobs())
    assert not isinstance(blobs, Appendable)
    return blobs


@pytest.fixture
def putter(blobs):
    return ImmutablePackWriter(blobs, counting_ids())


def packs(blobs):
    return {pack_id: blobs.inner.get(pack_key(pack_id)) for pack_id in list_packs(blobs.inner)}


def stored(blobs, location):
    return blobs.inner.get(pack_key(location.pack_id), location.offset, location.length)


def in_threads(putter, envelopes):
    """Append all at the same time; return the threads, and a dict that gets the location or error of each envelope."""
    outcomes = [None] * len(envelopes)

    def append(index):
        try:
            outcomes[index] = putter.append(envelopes[index])
        except StorageUnavailableError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=append, args=(index,)) for index in range(len(envelopes))]
    for thread in threads:
        thread.start()
    return threads, outcomes


def join(threads):
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


class Held:
    """Blocks puts until the test releases them."""

    def __init__(self, blobs):
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        blobs.on("put", self)

    def __call__(self):
        self.began.release()
        assert self.may_end.acquire(timeout=30)

    def wait(self, count):
        for _ in range(count):
            assert self.began.acquire(timeout=30)


@pytest.mark.parametrize("size", [SMALL, HALF, LARGE])
def test_a_single_envelope_gets_its_own_pack(putter, blobs, size):
    locations = [putter.append(bytes([number]) * size) for number in range(3)]
    assert [location.offset for location in locations] == [PACK_HEADER_BYTES] * 3
    assert len({location.pack_id for location in locations}) == 3
    for number, location in enumerate(locations):
        assert stored(blobs, location) == bytes([number]) * size
        content = packs(blobs)[location.pack_id]
        assert decode_header(content) == location.pack_id
        assert len(content) == PACK_HEADER_BYTES + size


def test_envelopes_of_one_call_are_in_one_pack(putter, blobs):
    envelopes = [bytes([number]) * (10 + number) for number in range(5)]
    locations = putter.append_all(envelopes)
    assert len({location.pack_id for location in locations}) == 1
    assert [stored(blobs, location) for location in locations] == envelopes
    assert blobs.calls["put"] == 1


def test_large_envelopes_are_put_at_once_and_small_ones_gather(blobs):
    """Up to sixteen puts of large envelopes are in flight. Two of small ones are, and all others share the next."""
    putter = ImmutablePackWriter(blobs, counting_ids(), puts_max=5)
    held = Held(blobs)
    large, large_outcomes = in_threads(putter, [bytes([number]) * LARGE for number in range(5)])
    held.wait(5)
    first, first_outcomes = in_threads(putter, [b"a" * SMALL])
    held.wait(1)
    second, second_outcomes = in_threads(putter, [b"b" * SMALL])
    held.wait(1)
    assert SMALL_PUTS_MAX == 2
    others, outcomes = in_threads(putter, [bytes([number]) * SMALL for number in range(20)])
    until_gathering(putter._small, 20)
    assert packs(blobs) == {}, "no blob exists before its put"
    assert outcomes == [None] * 20
    held.may_end.release(8)
    join(large + first + second + others)
    assert blobs.calls["put"] == 5 + 2 + 1
    assert len({location.pack_id for location in outcomes}) == 1
    assert [stored(blobs, location) for location in outcomes] == [bytes([number]) * SMALL for number in range(20)]
    assert len({location.pack_id for location in large_outcomes}) == 5
    assert stored(blobs, first_outcomes[0]) + stored(blobs, second_outcomes[0]) == b"a" * SMALL + b"b" * SMALL


@pytest.mark.parametrize("size", [HALF, LARGE - 1])
def test_half_size_envelopes_gather_behind_four_puts(blobs, size):
    """Envelopes that a collection would merge are put together from the beginning; a single one does not wait."""
    putter = ImmutablePackWriter(blobs, counting_ids())
    held = Held(blobs)
    first, alone = [], []
    for number in range(HALF_PUTS_MAX):
        threads, outcomes = in_threads(putter, [bytes([number]) * size])
        held.wait(1)
        first, alone = first + threads, [*alone, outcomes]
    others, together = in_threads(putter, [bytes([number]) * size for number in range(12)])
    until_gathering(putter._half, 12)
    whole, _ = in_threads(putter, [b"w" * LARGE])
    held.wait(1)
    held.may_end.release(HALF_PUTS_MAX + 2)
    join(first + others + whole)
    assert len({location.pack_id for outcomes in alone for location in outcomes}) == HALF_PUTS_MAX
    assert len({location.pack_id for location in together}) == 1
    assert [stored(blobs, location)[0] for location in together] == list(range(12))


def test_large_envelopes_that_wait_share_packs_of_the_target_size(blobs):
    """One put is in flight; seven envelopes wait, in packs of at most three."""
    putter = ImmutablePackWriter(blobs, counting_ids(), puts_max=1, pack_bytes_target=3 * LARGE)
    held = Held(blobs)
    first, _ = in_threads(putter, [b"f" * LARGE])
    held.wait(1)
    others, outcomes = in_threads(putter, [bytes([number]) * LARGE for number in range(7)])
    until(lambda: putter._whole._gathering is not None and len(putter._whole._gathering.items) == 1)
    held.may_end.release(4)
    join(first + others)
    assert blobs.calls["put"] == 4
    sizes = sorted(len(content) - PACK_HEADER_BYTES for content in packs(blobs).values())
    assert sizes == [LARGE, LARGE, 3 * LARGE, 3 * LARGE]
    assert [stored(blobs, location)[0] for location in outcomes] == list(range(7))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (StorageUnavailableError("out", hint="wait"), StorageUnavailableError),
        (StorageFullError("full", hint="wait"), StorageFullError),
        (BlobExistsError("taken", hint="wait"), StorageUnavailableError),
    ],
)
def test_a_failed_put_fails_only_its_own_envelopes(blobs, failure, kind):
    putter = ImmutablePackWriter(blobs, counting_ids())
    before = putter.append(b"b" * SMALL)
    held = Held(blobs)
    lucky, lucky_outcomes = in_threads(putter, [b"L" * LARGE])
    held.wait(1)
    small, small_outcomes = in_threads(putter, [b"s" * SMALL])
    held.wait(1)
    other, other_outcomes = in_threads(putter, [b"t" * SMALL])
    held.wait(1)
    others, outcomes = in_threads(putter, [b"u" * SMALL] * 10)
    until_gathering(putter._small, 10)
    blobs.fail("put", error=failure)
    held.may_end.release(4)
    join(lucky + small + other + others)
    assert [type(outcome) for outcome in outcomes] == [kind] * 10
    assert {outcome.hint for outcome in outcomes} == {"wait"}
    assert len({id(outcome) for outcome in outcomes}) == 10, "each thread has its own exception"
    assert stored(blobs, lucky_outcomes[0]) == b"L" * LARGE
    assert stored(blobs, small_outcomes[0]) + stored(blobs, other_outcomes[0]) == b"s" * SMALL + b"t" * SMALL
    held.may_end.release(1)
    after = putter.append(b"a" * SMALL)
    assert stored(blobs, before) + stored(blobs, after) == b"b" * SMALL + b"a" * SMALL


def test_the_name_of_a_failed_put_is_never_reused(putter, blobs):
    blobs.fail("put", answer_lost=True)
    with pytest.raises(StorageUnavailableError):
        putter.append(b"x" * SMALL)
    (late,) = packs(blobs)
    location = putter.append(b"x" * SMALL)
    assert location.pack_id != late


@pytest.mark.parametrize("at", range(1, 12))
def test_a_fault_at_any_put_loses_no_acknowledged_envelope(putter, blobs, at):
    blobs.fail("put", at)
    acknowledged, refused = {}, 0
    for number in range(12):
        envelope = bytes([number]) * (LARGE if number % 3 == 0 else SMALL)
        try:
            acknowledged[putter.append(envelope)] = envelope
        except StorageUnavailableError:
            refused += 1
    assert refused == 1
    assert {location: stored(blobs, location) for location in acknowledged} == acknowledged


def test_a_closed_writer_accepts_nothing_and_finishes_puts_in_flight(putter, blobs):
    held = Held(blobs)
    threads, outcomes = in_threads(putter, [b"L" * LARGE])
    held.wait(1)
    putter.close()
    putter.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        putter.append(b"x")
    held.may_end.release(1)
    join(threads)
    assert stored(blobs, outcomes[0]) == b"L" * LARGE


def test_roll_has_no_effect(putter, blobs):
    location = putter.append(b"x" * SMALL)
    putter.roll(location.pack_id)
    putter.append(b"y" * SMALL)
    assert len(packs(blobs)) == 2


def test_no_pack_is_put_before_the_first_append(putter, blobs):
    putter.close()
    assert packs(blobs) == {}


def test_many_threads_put_many_sizes(blobs):
    putter = ImmutablePackWriter(blobs, counting_ids(), pack_bytes_target=1_000_000, puts_max=3)
    envelopes = [bytes([number]) * (SMALL * number if number % 8 else LARGE + number) for number in range(200)]
    found = {}

    def work(start):
        for number in range(start, len(envelopes), 8):
            found[number] = putter.append(envelopes[number])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    join(threads)
    assert len(found) == 200
    assert all(stored(blobs, location) == envelopes[number] for number, location in found.items())

"""The index of a pack has all of its sound envelopes and nothing else, whatever the damage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import HEADER_BYTES, EnvelopeHeader, PayloadKind, seal
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.reader import PackReader
from cryostore.core.digest import Payload
from cryostore.core.errors import BlobNotFoundError, StorageUnavailableError
from cryostore.maintenance.verification.pack_index import Unopened, envelopes, sound_envelopes
from support.faults.damaging import noise
from support.faults.faulty_blobs import FaultyBlobs
from support.requests.api import sha

PACK = "00000000-0000-4000-8000-0000000000AB"
KEY = DataKey(b"k" * 16, bytes(32))
OTHER = DataKey(b"o" * 16, bytes(range(32)))
KEYS = {KEY.key_id: KEY, OTHER.key_id: OTHER}
PAYLOADS = [noise(number, 40 + 700 * number) for number in range(5)]


def sealed(data, key=KEY, kind=PayloadKind.CHUNK):
    """Return an envelope."""
    return bytes(seal(Payload(data), key, salt=bytes(16), kind=kind))


def store(*pieces):
    """Make a store with one pack of these pieces."""
    blobs = MemoryBlobs()
    blobs.put(pack_key(PACK), encode_header(PACK) + b"".join(pieces))
    return blobs


def digests(blobs):
    """Return the digests of the found envelopes, in order."""
    return [found.digest for found in sound_envelopes(PackReader(blobs, PACK), KEYS.get)]


def test_the_index_has_all_facts_about_an_envelope():
    one, two = sealed(PAYLOADS[0]), sealed(PAYLOADS[1], OTHER, PayloadKind.METADATA)
    first, second = sound_envelopes(PackReader(store(one, two), PACK), KEYS.get)
    assert first == (PACK_HEADER_BYTES, len(one), KEY.key_id, sha(PAYLOADS[0]), len(PAYLOADS[0]), PayloadKind.CHUNK)
    assert second[:3] == (PACK_HEADER_BYTES + len(one), len(two), OTHER.key_id)
    assert second[3:] == (sha(PAYLOADS[1]), len(PAYLOADS[1]), PayloadKind.METADATA)


def test_a_missing_pack_raises_an_error():
    with pytest.raises(BlobNotFoundError):
        list(sound_envelopes(PackReader(MemoryBlobs(), PACK), KEYS.get))


def test_a_missing_key_hides_only_its_own_envelopes():
    blobs = store(sealed(PAYLOADS[0], OTHER), sealed(PAYLOADS[1]))
    found = list(envelopes(PackReader(blobs, PACK), {KEY.key_id: KEY}.get))
    assert isinstance(found[0], Unopened)
    assert (found[0].key_id, found[0].damaged) == (OTHER.key_id, False)
    assert found[1].digest == sha(PAYLOADS[1])


@pytest.mark.parametrize("place", [*range(0, HEADER_BYTES, 2), HEADER_BYTES, -1])
def test_a_flipped_bit_hides_one_envelope_and_no_others(place):
    pieces = [bytearray(sealed(data)) for data in PAYLOADS[:3]]
    pieces[1][place] ^= 1
    assert digests(store(*pieces)) == [sha(PAYLOADS[0]), sha(PAYLOADS[2])]


def test_a_header_of_another_pack_or_none_hides_nothing():
    blobs = MemoryBlobs()
    blobs.put(pack_key(PACK), bytes(PACK_HEADER_BYTES) + sealed(PAYLOADS[0]))
    assert digests(blobs) == [sha(PAYLOADS[0])]


def test_a_forged_header_with_a_valid_check_is_not_trusted():
    """A header can be forged, the content cannot: opening the envelope shows it."""
    envelope = sealed(PAYLOADS[3])
    header = EnvelopeHeader.decode(envelope)
    lie = header._replace(masked_digest=bytes(32)).encode() + envelope[HEADER_BYTES:]
    assert digests(store(lie, sealed(PAYLOADS[1]))) == [sha(PAYLOADS[1])]


@pytest.mark.parametrize("window_bytes", [HEADER_BYTES, 150, 1000, 1 << 20])
def test_the_same_envelopes_are_found_around_damage_with_any_window(window_bytes):
    """Envelopes and their headers cross the borders of windows."""
    junk = random.Random(1).randbytes(777) + b"CRYE" * 40
    blobs = store(*(piece for data in PAYLOADS for piece in (sealed(data), junk)))
    reader = PackReader(blobs, PACK, window_bytes=window_bytes)
    assert [found.digest for found in envelopes(reader, KEYS.get)] == [sha(data) for data in PAYLOADS]


@given(st.data())
def test_only_sealed_envelopes_are_found_in_a_damaged_pack(data):
    """The pack is cut, zeroed, overwritten or reversed. No error is raised, and every found envelope existed before."""
    pack = bytearray(b"".join(map(sealed, PAYLOADS)))
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(pack)))
        end = data.draw(st.integers(start, len(pack)))
        change = data.draw(st.sampled_from(["cut", "zero", "junk", "repeat"]))
        piece = {"cut": b"", "zero": bytes(end - start), "junk": noise(9, end - start), "repeat": pack[start:end] * 2}
        pack[start:end] = piece[change]
        if not pack:
            break
    assert set(digests(store(pack))) <= {sha(data) for data in PAYLOADS}


def test_a_large_pack_needs_little_memory():
    """Reads are as large as the window, not as the pack, and each byte is read about once."""
    blobs = FaultyBlobs(store(*(sealed(noise(number, 10_000)) for number in range(100))))
    sizes = []
    get = blobs.inner.get
    blobs.inner.get = lambda *arguments: (found := get(*arguments), sizes.append(len(found)))[0]
    reader = PackReader(blobs, PACK, window_bytes=50_000)
    assert len(list(envelopes(reader, KEYS.get))) == 100
    assert max(sizes) == 50_000
    assert sum(sizes) < reader.size * 1.3


def test_one_bad_sector_hides_what_it_covers():
    pieces = [sealed(noise(number, 1000)) for number in range(5)]
    blobs = store(*pieces)
    bad = PACK_HEADER_BYTES + len(pieces[0]) + 500  # in the second piece
    get = blobs.get

    def failing(key, offset=0, length=None):
        if offset <= bad < offset + length:
            raise StorageUnavailableError("a bad sector")
        return get(key, offset, length)

    blobs.get = failing
    reader = PackReader(blobs, PACK)
    places = list(reader.walk())
    assert len(places) == 5
    with pytest.raises(StorageUnavailableError):
        reader.range(places[1].offset, places[1].header.envelope_bytes)
    assert bytes(reader.range(places[2].offset, len(pieces[2]))) == pieces[2]

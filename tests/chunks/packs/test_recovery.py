"""Recovery of packs: only a torn tail is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import HEADER_BYTES, seal
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.recovery import cut_torn_tail
from cryostore.core.digest import Payload

KEY = DataKey(b"k" * 16, bytes(32))
PACK = "00000000-0000-4000-8000-0000000000AB"


def envelope(data):
    return bytes(seal(Payload(data), KEY, salt=b"s" * 16))


@pytest.fixture(params=["memory", "local"])
def blobs(request, tmp_path):
    store = MemoryBlobs() if request.param == "memory" else LocalBlobs(tmp_path)
    yield store
    store.close()


@given(
    payloads=st.lists(st.binary(max_size=50), max_size=4),
    damaged=st.integers(-1, 3),
    tail=st.one_of(st.binary(max_size=200), st.integers(0, 300).map(bytes), st.just(envelope(b"x" * 200)[:-1])),
)
def test_only_bytes_after_the_last_whole_envelope_are_cut(payloads, damaged, tail):
    """Damage before a whole envelope is not a torn tail. A whole envelope is never cut."""
    blobs = MemoryBlobs()
    envelopes = [bytearray(envelope(data)) for data in payloads]
    if damaged < len(envelopes) - 1 and damaged >= 0:
        envelopes[damaged][0] ^= 0x01
    whole = encode_header(PACK) + b"".join(envelopes)
    blobs.put(pack_key(PACK), whole + tail)
    assert cut_torn_tail(blobs, PACK) == len(tail)
    assert blobs.get(pack_key(PACK)) == whole
    assert cut_torn_tail(blobs, PACK) == 0


@pytest.mark.parametrize("size", range(PACK_HEADER_BYTES + 1))
def test_a_pack_with_a_torn_header_is_unchanged(blobs, size):
    blobs.put(pack_key(PACK), encode_header(PACK)[:size])
    assert cut_torn_tail(blobs, PACK) == 0
    assert blobs.stat(pack_key(PACK)) == size


def test_the_tail_of_a_live_writer_is_never_cut(blobs):
    appender = blobs.open_append(pack_key(PACK))
    torn = encode_header(PACK) + envelope(b"one") + envelope(b"two")[: HEADER_BYTES + 3]
    appender.append([torn])
    assert cut_torn_tail(blobs, PACK) == 0
    assert blobs.get(pack_key(PACK)) == torn
    appender.close()
    assert cut_torn_tail(blobs, PACK) == HEADER_BYTES + 3
    assert (
        blobs.get(pack_key(PACK))
        == encode_header(PACK) + envelope(b"")[:0] + torn[PACK_HEADER_BYTES : -HEADER_BYTES - 3]
    )


def test_an_absent_pack_has_no_tail(blobs):
    assert cut_torn_tail(blobs, PACK) == 0


def test_only_the_headers_of_a_large_pack_are_read(monkeypatch):
    """Whole envelopes are skipped."""
    blobs = MemoryBlobs()
    blobs.put(pack_key(PACK), encode_header(PACK) + envelope(b"x" * 100_000) * 5)
    reads = []
    get = blobs.get
    monkeypatch.setattr(blobs, "get", lambda *arguments: (data := get(*arguments), reads.append(len(data)))[0])
    assert cut_torn_tail(blobs, PACK) == 0
    assert sum(reads) == 5 * HEADER_BYTES

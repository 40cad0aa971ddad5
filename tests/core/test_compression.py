"""Compression: round trips, which data is compressed, and which input decoding refuses."""

from __future__ import annotations

import contextlib
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cryostore.core.compression import Codec, Compression, decompress
from cryostore.core.errors import DamagedDataError

COMPRESSION = Compression(level=2, bytes_min=64)
STORE = Compression(level=2, bytes_min=64, large_hash_log=15)
NOISE = random.Random(7).randbytes(4 << 20)
TEXT = b"".join(b"line %d of a text, and so on\n" % number for number in range(200_000))[: 4 << 20]


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=50), st.integers(1, 4000)),
        st.builds(lambda start, size: NOISE[start : start + size], st.integers(0, 10_000), st.integers(0, 100_000)),
    )
)
def test_encoded_data_decodes(data):
    codec, encoded = COMPRESSION.compress(data)
    assert len(encoded) <= len(data)
    assert decompress(codec, bytes(encoded), len(data)) == data


@pytest.mark.parametrize("size", [64, 1000, 16 << 10, (16 << 10) + 1, 100_000, 4 << 20])
def test_text_shrinks(size):
    codec, encoded = COMPRESSION.compress(TEXT[:size])
    assert codec is Codec.ZSTD
    assert len(encoded) < size * 0.9


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 16 << 10, (16 << 10) + 1, 100_000, 4 << 20])
def test_incompressible_data_is_returned_as_the_same_object(size):
    data = NOISE[:size]
    assert COMPRESSION.compress(data) == (Codec.STORED, data)
    assert COMPRESSION.compress(data)[1] is data


def test_data_below_the_minimum_is_never_compressed(monkeypatch):
    assert Compression(level=2).compress(bytes(63))[0] is Codec.ZSTD
    monkeypatch.setattr(COMPRESSION, "_engines", None)
    assert COMPRESSION.compress(bytes(63))[0] is Codec.STORED


def records(size, seed=3):
    """Return words of random bytes from a vocabulary of 24 KiB: a sample contains no repetition."""
    chance = random.Random(seed)
    words = [chance.randbytes(12) for _ in range(2048)]
    return b"".join(chance.choices(words, k=size // 12 + 1))[:size]


@pytest.mark.parametrize("compression", [COMPRESSION, Compression(level=3), STORE], ids=["2", "3", "store"])
@pytest.mark.parametrize("piece", [16 << 10, 64 << 10, 1 << 20])
@pytest.mark.parametrize("compressible", [records(2 << 20), TEXT], ids=["records", "text"])
def test_repetition_that_no_sample_shows_shrinks(compression, piece, compressible):
    pieces = range(0, 2 << 20, piece)
    data = b"".join(part[start : start + piece] for start in pieces for part in (NOISE, compressible))
    codec, encoded = compression.compress(data)
    assert codec is Codec.ZSTD
    assert len(encoded) < len(data) * 0.72
    assert decompress(codec, bytes(encoded), len(data)) == data


@pytest.mark.parametrize("start", range(0, 4 << 20, 512 << 10))
def test_a_compressible_eighth_shrinks_wherever_it_lies(start):
    data = bytearray(NOISE)
    data[start : start + (512 << 10)] = TEXT[: 512 << 10]
    codec, encoded = STORE.compress(data)
    assert codec is Codec.ZSTD
    assert len(encoded) < 3.7 * (1 << 20)


TABLE = bytes(range(256)) * 4096


@pytest.mark.parametrize(
    ("data", "kind"), [(TEXT, "text"), (NOISE, "dense"), (TABLE, "blocks"), (TABLE[1:], "code"), (TABLE[:-512], "code")]
)
def test_large_data_is_compressed_by_its_content(data, kind):
    assert STORE._chosen(data) is getattr(STORE._engines, kind)


@pytest.mark.parametrize(("gain", "codec"), [(12, Codec.STORED), (13, Codec.ZSTD)])
def test_a_small_gain_is_not_worth_it(monkeypatch, gain, codec):
    class Engines:
        class small:  # noqa: N801 - stands for an object
            @staticmethod
            def compress(data):
                return data[:-gain]

    monkeypatch.setattr(COMPRESSION, "_engines", Engines)
    assert COMPRESSION.compress(bytes(3200))[0] is codec


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("data", [TEXT[:100_000], NOISE[:100_000], TEXT[:100]], ids=["text", "noise", "short"])
def test_any_buffer_is_accepted(form, data):
    codec, encoded = COMPRESSION.compress(form(data))
    assert decompress(codec, bytes(encoded), len(data)) == data


@pytest.mark.parametrize("length", [0, 99, 101, 1 << 40])
def test_a_wrong_length_is_refused_before_anything_is_allocated(length):
    for codec, encoded in ((Codec.STORED, bytes(100)), (Codec.ZSTD, zstandard.compress(bytes(100)))):
        with pytest.raises(DamagedDataError):
            decompress(codec, encoded, length)


def test_a_frame_that_claims_a_false_size_is_refused():
    """The frame and the caller both claim 1 TiB, but there is little data."""
    frame = bytes.fromhex("28b52ffde0") + (1 << 40).to_bytes(8, "little") + bytes.fromhex("010000")
    assert zstandard.frame_content_size(frame) == 1 << 40
    with pytest.raises(DamagedDataError):
        decompress(Codec.ZSTD, frame, 100)


@given(st.binary(max_size=50))
def test_garbage_is_refused(data):
    with pytest.raises(DamagedDataError):
        decompress(Codec.ZSTD, data, 1000)


def test_a_damaged_frame_is_refused_or_of_the_right_length():
    """The frame has no checksum, because the envelope has a tag. Decoding neither crashes nor exceeds the length."""
    encoded = bytearray(zstandard.compress(TEXT[:5000]))
    for position in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[position] ^= 0x55
        with contextlib.suppress(DamagedDataError):
            assert len(decompress(Codec.ZSTD, damaged, 5000)) == 5000


@pytest.mark.parametrize("level", [1, 2, 3, 9])
def test_one_decoder_reads_every_level(level):
    codec, encoded = Compression(level=level).compress(TEXT[:50_000])
    assert codec is Codec.ZSTD
    assert decompress(codec, bytes(encoded), 50_000) == TEXT[:50_000]


def test_an_unknown_codec_is_refused():
    with pytest.raises(DamagedDataError, match="codec 2"):
        decompress(2, bytes(100), 100)

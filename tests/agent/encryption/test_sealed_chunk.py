"""Sealed chunks: golden files, padding, nonces, and chunks that are refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.cipher import seal
from cryostore.agent.encryption.sealed_object import HEAD, INNER, ChunkKind, open_chunk, padded_length, seal_chunk
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.errors import KeyUnavailableError
from support.archives.sealed_samples import ARCHIVE_KEY, KEYS, golden_hex

COVERS = ("agent/encryption/sealed_object.py",)

STORED = random.Random(1).randbytes(300)
TEXT = b"what compresses well " * 2000


def test_golden_chunks():
    chunk_id = ARCHIVE_KEY.chunk_id(STORED)
    assert seal_chunk(ARCHIVE_KEY, ChunkKind.TABLE, chunk_id, STORED) == golden_hex("agent-sealed-chunk-stored.hex")
    assert open_chunk(KEYS, ChunkKind.TABLE, chunk_id, golden_hex("agent-sealed-chunk-stored.hex")) == STORED
    context = ARCHIVE_KEY.chunk_id(TEXT)
    assert open_chunk(KEYS, ChunkKind.CATALOG, context, golden_hex("agent-sealed-chunk-zstd.hex")) == TEXT


@given(payload=st.binary(max_size=70_000), kind=st.sampled_from(list(ChunkKind)), context=st.binary(max_size=40))
def test_a_sealed_chunk_opens_and_hides_its_length(payload, kind, context):
    sealed = seal_chunk(ARCHIVE_KEY, kind, context, payload)
    assert open_chunk(KEYS, kind, context, sealed) == payload
    assert sealed == seal_chunk(ARCHIVE_KEY, kind, context, payload)
    assert (len(sealed) - HEAD.size - 16) % (4 << 10) == 0


@given(at=st.integers(0, 4200), bit=st.integers(0, 7))
def test_any_changed_bit_is_detected(at, bit):
    sealed = bytearray(seal_chunk(ARCHIVE_KEY, ChunkKind.HEAD, b"catalog", b"payload"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises((ArchiveDamagedError, KeyUnavailableError)):
        open_chunk(KEYS, ChunkKind.HEAD, b"catalog", bytes(sealed))


def test_another_context_kind_or_key_does_not_open_a_chunk():
    sealed = seal_chunk(ARCHIVE_KEY, ChunkKind.CONTENT, b"here", b"payload")
    other = ArchiveKey(ARCHIVE_KEY.key_id, bytes(32), ARCHIVE_KEY.id_secret)
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, ChunkKind.CONTENT, b"there", sealed)
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, ChunkKind.CATALOG, b"here", sealed)
    with pytest.raises(ArchiveDamagedError):
        open_chunk({other.key_id: other}, ChunkKind.CONTENT, b"here", sealed)
    with pytest.raises(KeyUnavailableError, match="000102"):
        open_chunk({}, ChunkKind.CONTENT, b"here", sealed)


@pytest.mark.parametrize("length", [0, 3, 35, 36, 51, 60])
def test_a_truncated_chunk_is_refused(length):
    sealed = seal_chunk(ARCHIVE_KEY, ChunkKind.CONTENT, b"here", b"payload")[:length]
    with pytest.raises(ArchiveDamagedError):
        open_chunk(KEYS, ChunkKind.CONTENT, b"here", sealed)


def test_the_error_for_a_later_format_names_it():
    sealed = bytearray(seal_chunk(ARCHIVE_KEY, ChunkKind.CONTENT, b"here", b"payload"))
    sealed[4] = 2
    with pytest.raises(ArchiveDamagedError, match="format 2, unknown to this version"):
        open_chunk(KEYS, ChunkKind.CONTENT, b"here", bytes(sealed))


def test_different_plaintexts_have_different_nonces():
    """A context with many payloads, such as the head of a listing, must not repeat a nonce."""
    nonces = {HEAD.unpack_from(seal_chunk(ARCHIVE_KEY, ChunkKind.HEAD, b"catalog", b"%d" % n))[4] for n in range(500)}
    assert len(nonces) == 500


@given(length=st.integers(0, 1 << 33), quantum=st.sampled_from([1 << 12, 1 << 14, 1 << 16]))
def test_padding_is_bounded_and_idempotent(length, quantum):
    padded = padded_length(length, quantum)
    assert length <= padded <= max(length + length // 16, length + quantum)
    assert padded % quantum == 0
    assert padded_length(padded, quantum) == padded


def test_padded_lengths_have_few_values():
    lengths = {padded_length(length, 1 << 16) for length in range(1 << 20, 1 << 22, 997)}
    assert len(lengths) <= 50


def test_the_inner_head_is_checked_after_decryption():
    """A wrong inner head from an owner of the key is an error. It causes no wrong bytes and no large allocation."""
    wrong = [INNER.pack(codec, 5, length) + b"short" for codec, length in ((0, 500), (1, 5), (9, 5))]
    for inner in (*wrong, b""):
        head = HEAD.pack(b"CRYA", 1, ChunkKind.CONTENT, ARCHIVE_KEY.key_id, bytes(12))
        key = ARCHIVE_KEY.chunk_key(bytes([ChunkKind.CONTENT]) + b"here")
        with pytest.raises(ArchiveDamagedError):
            open_chunk(KEYS, ChunkKind.CONTENT, b"here", head + seal(key, bytes(12), inner, head + b"here"))

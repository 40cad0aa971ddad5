"""Envelopes: round trips, every kind of damage, and scanning without a key."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryostore.chunks import envelope as module
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import (
    ENVELOPE_OVERHEAD_BYTES,
    HEADER_BYTES,
    EnvelopeHeader,
    PayloadKind,
    open_envelope,
    scan,
    seal,
)
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import DamagedDataError

KEY = DataKey(b"k" * 16, bytes(range(32)))
OTHER_KEY = DataKey(b"o" * 16, bytes(32))
SALT = b"s" * 16
NOISE = random.Random(3).randbytes(100_000)
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=30), st.integers(1, 3000)),
    st.builds(lambda start, size: NOISE[start : start + size], st.integers(0, 50_000), st.integers(0, 50_000)),
)


def opened(envelope, data, key=KEY):
    return open_envelope(envelope, key, sha256(data), len(data))


@given(data=PAYLOADS, kind=st.sampled_from(PayloadKind), form=st.sampled_from([bytes, bytearray, memoryview]))
def test_a_sealed_payload_opens(data, kind, form):
    envelope = seal(Payload(form(data)), KEY, salt=SALT, kind=kind)
    assert opened(envelope, data) == data
    header = EnvelopeHeader.decode(envelope)
    assert (header.kind, header.key_id, header.salt) == (kind, KEY.key_id, SALT)
    assert (header.payload_bytes, header.envelope_bytes) == (len(data), len(envelope))
    assert header.digest(KEY) == sha256(data)
    assert len(envelope) <= len(data) + ENVELOPE_OVERHEAD_BYTES


@given(data=PAYLOADS)
def test_an_envelope_opens_at_any_position(data):
    """It opens as bytes and as a part of a pack, because its position is not part of it."""
    envelope = seal(Payload(data), KEY, salt=SALT)
    pack = b"before" + envelope + b"behind"
    assert opened(memoryview(pack)[6 : 6 + len(envelope)], data) == data


@pytest.mark.parametrize("data", [b"", b"stored", b"compressed " * 20], ids=["empty", "stored", "zstd"])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_noticed(data, flip):
    envelope = seal(Payload(data), KEY, salt=SALT)
    for position in range(len(envelope)):
        damaged = bytearray(envelope)
        damaged[position] ^= flip
        with pytest.raises(DamagedDataError):
            opened(damaged, data)


@pytest.mark.parametrize("data", [b"", b"stored", b"compressed " * 20], ids=["empty", "stored", "zstd"])
def test_every_header_byte_is_authenticated(data):
    """A corrected CRC does not hide a change."""
    envelope = seal(Payload(data), KEY, salt=SALT)
    for position in range(HEADER_BYTES - 4):
        damaged = bytearray(envelope)
        damaged[position] ^= 0x01
        damaged[HEADER_BYTES - 4 : HEADER_BYTES] = struct.pack(">I", zlib.crc32(damaged[: HEADER_BYTES - 4]))
        with pytest.raises(DamagedDataError):
            opened(damaged, data)


def test_every_truncation_and_every_extension_is_noticed():
    envelope = seal(Payload(b"compressed " * 20), KEY, salt=SALT)
    for damaged in [*(envelope[:end] for end in range(len(envelope))), envelope + b"\0", b"\0" + envelope]:
        with pytest.raises(DamagedDataError):
            opened(damaged, b"compressed " * 20)


@given(st.binary(max_size=300))
def test_random_bytes_are_not_an_envelope(data):
    with pytest.raises(DamagedDataError):
        open_envelope(data, KEY, bytes(32), 10)


def test_a_mismatched_envelope_does_not_open():
    """It has another digest, length or key, or another secret under the same key id."""
    data = b"the payload"
    envelope = seal(Payload(data), KEY, salt=SALT)
    for key, digest, length in [
        (KEY, sha256(b"another"), len(data)), (KEY, sha256(data), len(data) - 1), (KEY, sha256(data), len(data) + 1),
        (OTHER_KEY, sha256(data), len(data)), (DataKey(KEY.key_id, bytes(32)), sha256(data), len(data)),
    ]:  # fmt: skip
        with pytest.raises(DamagedDataError):
            open_envelope(envelope, key, digest, length)


def test_a_key_with_another_id_is_refused_by_its_id():
    """The secret may be the same: the error shows a mix-up of vaults."""
    envelope = seal(Payload(b"x"), KEY, salt=SALT)
    with pytest.raises(DamagedDataError, match=f"{KEY.key_id.hex()}, not {OTHER_KEY.key_id.hex()}"):
        opened(envelope, b"x", DataKey(OTHER_KEY.key_id, KEY.secret))


@pytest.mark.parametrize("sealed_bytes", [0, 15])
def test_a_header_without_space_for_a_tag_is_invalid(sealed_bytes):
    """Its CRC does not matter. A scan continues after it."""
    header = EnvelopeHeader.decode(sealed(b"x")[0])._replace(sealed_bytes=sealed_bytes).encode()
    assert found(header + bytes(sealed_bytes) + sealed(b"y")[0]) == [(HEADER_BYTES + sealed_bytes, sha256(b"y"))]


def test_bodies_cannot_be_exchanged():
    """Two payloads have the same length and key. The header of one does not open the body of the other."""
    one, two = (seal(Payload(data), KEY, salt=SALT) for data in (b"1" * 20, b"2" * 20))
    for data in (b"1" * 20, b"2" * 20):
        with pytest.raises(DamagedDataError):
            opened(one[:HEADER_BYTES] + two[HEADER_BYTES:], data)


def test_two_seals_of_one_payload_have_nothing_in_common():
    """With the same payload, key and salt, only the public fields are equal."""
    one, two = (EnvelopeHeader.decode(seal(Payload(b"same"), KEY, salt=SALT)) for _ in range(2))
    assert one.nonce != two.nonce
    assert one.masked_digest != two.masked_digest
    assert sha256(b"same") not in (one.masked_digest, two.masked_digest)


def test_a_later_format_is_reported_as_such():
    envelope = seal(Payload(b"x"), KEY, salt=SALT)
    for position in (4, 6, 7):
        later = bytearray(envelope)
        later[position] = 9
        later[HEADER_BYTES - 4 : HEADER_BYTES] = struct.pack(">I", zlib.crc32(later[: HEADER_BYTES - 4]))
        with pytest.raises(DamagedDataError, match="unknown to this version"):
            opened(later, b"x")


def test_a_payload_that_does_not_decode_is_never_stored(monkeypatch):
    """The compressor returns wrong bytes; a flipped bit in memory has the same effect."""
    monkeypatch.setattr(module.COMPRESSION, "compress", lambda data: (0, b"!" + bytes(data[1:])))
    with pytest.raises(DamagedDataError, match="did not survive"):
        seal(Payload(b"payload"), KEY, salt=SALT)


def test_a_payload_with_a_wrong_digest_is_sealed_unverified():
    """The service verifies the digest. The chunk layer seals the given digest with the payload."""
    envelope = seal(Payload(b"x", sha256=sha256(b"y")), KEY, salt=SALT)
    assert open_envelope(envelope, KEY, sha256(b"y"), 1) == b"x"


def sealed(*payloads):
    return [bytes(seal(Payload(data), KEY, salt=SALT)) for data in payloads]


def found(data, offset=0):
    return [(position, header.digest(KEY)) for position, header in scan(data, offset)]


def test_scan_yields_consecutive_envelopes():
    one, two, three = sealed(b"1", b"2" * 5000, b"")
    data = one + two + three
    assert found(data) == [
        (0, sha256(b"1")), (len(one), sha256(b"2" * 5000)), (len(one) + len(two), sha256(b"")),
    ]  # fmt: skip
    assert found(data, len(one)) == found(data)[1:]


def test_scan_skips_damage_and_finds_the_next_envelope():
    """Each byte in the header of the middle envelope is damaged in turn. Both neighbours are always found."""
    one, two, three = sealed(b"1", b"2", b"3")
    for position in range(HEADER_BYTES):
        damaged = bytearray(two)
        damaged[position] ^= 0x01
        assert found(one + damaged + three) == [(0, sha256(b"1")), (len(one) + len(two), sha256(b"3"))]


@given(
    junk=st.lists(st.one_of(st.binary(max_size=40), st.just(b"CRYE"), st.just(b"CRYECRY"), st.just(bytes(200)))),
    payloads=st.lists(st.binary(max_size=40), max_size=5),
    cut=st.integers(0, 200),
)
def test_scan_finds_all_whole_envelopes_between_other_bytes(junk, payloads, cut):
    data, wanted = b"", []
    for index in range(max(len(junk), len(payloads))):
        data += b"".join(junk[index : index + 1])
        for payload in payloads[index : index + 1]:
            wanted.append((len(data), sha256(payload)))
            data += sealed(payload)[0]
    torn = sealed(b"x" * 200)[0]
    data += torn[: min(cut, len(torn) - 1)]
    assert found(data) == wanted


def test_scan_ignores_a_magic_number_inside_a_body(monkeypatch):
    """Ciphertext may contain any bytes, so a scan skips it."""
    inner = sealed(b"inner")[0]
    outer = bytearray(sealed(b"x" * 500)[0])
    outer[HEADER_BYTES + 10 : HEADER_BYTES + 10 + len(inner)] = inner
    assert found(bytes(outer)) == [(0, sha256(b"x" * 500))]

"""Data of a later format: it is refused with advice and left unchanged, not treated as damaged."""

from __future__ import annotations

import struct
import zlib

import pytest

from cryostore.catalog.rows import chunk_lists
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import HEADER_BYTES, EnvelopeHeader, open_envelope, seal
from cryostore.chunks.keyring import MasterKey, wrapped_key_id
from cryostore.chunks.packs import format as pack
from cryostore.chunks.packs import recovery
from cryostore.core.digest import Payload
from cryostore.core.errors import KeyUnavailableError, UnknownFormatError

PACK_ID = "0F1E2D3C-4B5A-4697-8877-665544332211"
KEY = DataKey(bytes(16), bytes(32))
PAYLOAD = Payload(b"some bytes")
ENVELOPE = bytes(seal(PAYLOAD, KEY, salt=bytes(16)))


def altered(data, offset, byte, check_at):
    """Return the bytes with another one at `offset`, and with a valid checksum."""
    fields = data[:offset] + bytes([byte]) + data[offset + 1 : check_at]
    return fields + struct.pack(">I", zlib.crc32(fields)) + data[check_at + 4 :]


LATER_PACK = altered(pack.encode_header(PACK_ID), 4, 2, pack.PACK_HEADER_BYTES - 4)
LATER_ENVELOPES = {
    name: altered(ENVELOPE, offset, 2, HEADER_BYTES - 4)
    for name, offset in {"version": 4, "codec": 6, "flags": 7}.items()
}


def refused(call):
    """Return the error, which must contain advice."""
    with pytest.raises(UnknownFormatError, match="format .*, unknown to this version") as raised:
        call()
    assert "newer Cryostore" in raised.value.hint


@pytest.mark.parametrize("envelope", LATER_ENVELOPES.values(), ids=LATER_ENVELOPES)
def test_a_later_envelope_is_refused(envelope):
    refused(lambda: EnvelopeHeader.decode(envelope))
    refused(lambda: open_envelope(envelope, KEY, PAYLOAD.sha256, len(PAYLOAD)))


def test_a_later_pack_is_refused():
    refused(lambda: pack.decode_header(LATER_PACK))


def test_a_later_chunk_list_is_refused():
    packed = chunk_lists.pack([chunk_lists.ChunkEntry(0, 1, bytes(32), 0)])
    refused(lambda: chunk_lists.unpack(altered(packed, 0, 3, len(packed) - 4)))


def test_a_later_wrapped_key_is_refused():
    wrapped = bytearray(MasterKey("master", bytes(32)).wrap(b"secret", b""))
    wrapped[4] = 2
    with pytest.raises(KeyUnavailableError, match="later format"):
        wrapped_key_id(bytes(wrapped))


@pytest.mark.parametrize(
    "content",
    [
        LATER_PACK + ENVELOPE[:50],
        pack.encode_header(PACK_ID) + ENVELOPE + LATER_ENVELOPES["version"],
        pack.encode_header(PACK_ID) + ENVELOPE + LATER_ENVELOPES["codec"] + ENVELOPE[:50],
        pack.encode_header(PACK_ID) + b"damage" + LATER_ENVELOPES["version"],
    ],
    ids=["pack", "envelope", "envelope before a torn one", "envelope behind damage"],
)
def test_data_of_a_later_format_is_not_cut_off_as_a_torn_tail(tmp_path, content):
    """An older version that opens the store must not take data that it cannot read for the remains of a crash."""
    blobs = open_blobs(tmp_path)
    blobs.put(pack.pack_key(PACK_ID), content)
    assert recovery.cut_torn_tail(blobs, PACK_ID) == 0
    assert blobs.get(pack.pack_key(PACK_ID)) == content
    blobs.close()


def test_a_torn_tail_of_this_version_is_cut_off(tmp_path):
    """Proves that the test above could fail."""
    blobs = open_blobs(tmp_path)
    blobs.put(pack.pack_key(PACK_ID), pack.encode_header(PACK_ID) + ENVELOPE + ENVELOPE[:50])
    assert recovery.cut_torn_tail(blobs, PACK_ID) == 50
    blobs.close()

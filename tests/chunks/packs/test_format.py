"""Pack format: names, header and scanning."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import seal
from cryostore.chunks.packs.format import (
    PACK_HEADER_BYTES,
    decode_header,
    encode_header,
    list_packs,
    pack_key,
    scan_pack,
)
from cryostore.core.digest import Payload, sha256
from cryostore.core.errors import BlobNotFoundError, DamagedDataError
from cryostore.core.ids import counting_ids, random_id

KEY = DataKey(b"k" * 16, bytes(32))
PACK = "00000000-0000-4000-8000-0000000000AB"


def envelope(data):
    return bytes(seal(Payload(data), KEY, salt=b"s" * 16))


@pytest.fixture(params=["memory", "local"])
def blobs(request, tmp_path):
    store = MemoryBlobs() if request.param == "memory" else LocalBlobs(tmp_path)
    yield store
    store.close()


def test_the_blob_key_of_a_pack():
    assert pack_key(PACK) == f"packs/ab/{PACK}.pack"


def test_a_header_has_the_id_of_its_pack():
    header = encode_header(PACK)
    assert len(header) == PACK_HEADER_BYTES
    assert decode_header(header + b"anything behind") == PACK
    assert decode_header(encode_header(new := random_id())) == new


def test_every_damaged_byte_of_a_header_is_noticed():
    header = encode_header(PACK)
    for position in range(PACK_HEADER_BYTES):
        damaged = bytearray(header)
        damaged[position] ^= 0x01
        for bad in (bytes(damaged), header[:position]):
            with pytest.raises(DamagedDataError):
                decode_header(bad)


def test_a_pack_id_must_be_a_uuid():
    with pytest.raises(ValueError, match="UUID"):
        encode_header("pack 7")


def test_a_listing_of_packs_can_be_resumed(blobs):
    new_id = counting_ids()
    ids = [new_id() for _ in range(300)]
    for pack_id in ids:
        blobs.put(pack_key(pack_id), b"")
    blobs.put("records/1", b"")
    blobs.put("packs/00/notes.txt", b"")
    listed = list(list_packs(blobs))
    assert sorted(listed) == ids
    assert list(list_packs(blobs, listed[123])) == listed[124:]


def test_scan_yields_offsets_and_headers(blobs):
    parts = [encode_header(PACK), envelope(b"one"), envelope(b"two" * 1000)]
    blobs.put(pack_key(PACK), b"".join(parts))
    assert [(offset, header.digest(KEY)) for offset, header in scan_pack(blobs, PACK)] == [
        (PACK_HEADER_BYTES, sha256(b"one")),
        (PACK_HEADER_BYTES + len(parts[1]), sha256(b"two" * 1000)),
    ]
    with pytest.raises(BlobNotFoundError):
        scan_pack(blobs, PACK.replace("AB", "CD"))

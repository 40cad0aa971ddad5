"""Released bytes of envelopes, packs and wrapped keys. They never change, because old data must always open.

The `*.hex` files were written once. If a test here fails, the format is a new one: give it a new version number and new
files, and keep these readable. The reference implementation below follows docs/reference/formats.md alone, and uses
none of the product's code.
"""

from __future__ import annotations

import hmac
import re
import struct
import zlib
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cryostore.chunks import envelope, keyring
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import PayloadKind, open_envelope, scan, seal
from cryostore.chunks.keyring import MasterKey
from cryostore.chunks.packs import format as pack
from cryostore.chunks.packs.growing import GrowingPackWriter
from cryostore.core.digest import Payload, sha256
from support import project

HERE = Path(__file__).parent
KEY_ID, SECRET = bytes(range(0x10, 0x20)), bytes(range(0x40, 0x60))
SALT, NONCE = bytes(range(0xA0, 0xB0)), bytes(range(0xC0, 0xCC))
PACK_ID = "0F1E2D3C-4B5A-4697-8877-665544332211"

PAYLOADS = {
    "envelope-empty": (PayloadKind.CHUNK, b""),
    "envelope-stored": (PayloadKind.CHUNK, b"Cryostore gives back what it was given.\n"),
    "envelope-zstd": (PayloadKind.METADATA, b"the same line of text, again and again\n" * 30),
}


def golden(name):
    return bytes.fromhex((HERE / f"{name}.hex").read_text(encoding="ascii"))


def reference_envelope(kind, codec, body, payload):
    """Build an envelope from the byte table alone."""
    seal_key = hmac.new(SECRET, b"cryostore envelope 1" + SALT, "sha256").digest()
    mask_key = hmac.new(SECRET, b"cryostore digest mask 1" + SALT, "sha256").digest()
    mask = hmac.new(mask_key, NONCE, "sha256").digest()
    digest = sha256(payload)
    masked = bytes(left ^ right for left, right in zip(digest, mask, strict=True))
    fields = b"CRYE" + bytes([1, kind, codec, 0]) + KEY_ID + SALT + NONCE + masked
    fields += struct.pack(">II", len(payload), len(body) + 16)
    header = fields + struct.pack(">I", zlib.crc32(fields))
    return header + AESGCM(seal_key).encrypt(NONCE, body, header + digest)


@pytest.mark.parametrize("name", PAYLOADS)
def test_old_envelopes_open(name):
    kind, payload = PAYLOADS[name]
    data = golden(name)
    assert open_envelope(data, DataKey(KEY_ID, SECRET), sha256(payload), len(payload)) == payload
    ((offset, header),) = scan(data)
    assert (offset, header.kind, header.digest(DataKey(KEY_ID, SECRET))) == (0, kind, sha256(payload))


@pytest.mark.parametrize("name", ["envelope-empty", "envelope-stored"])
def test_envelopes_are_written_byte_for_byte(name):
    """Except the compressed one: another zstd may compress differently, which is not a new format."""
    kind, payload = PAYLOADS[name]
    assert bytes(seal(Payload(payload), DataKey(KEY_ID, SECRET), salt=SALT, kind=kind, nonce=NONCE)) == golden(name)


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_written_format_is_the_documented_one(name):
    kind, payload = PAYLOADS[name]
    codec, body = (1, zstandard.compress(payload, 3)) if name == "envelope-zstd" else (0, payload)
    assert reference_envelope(kind, codec, body, payload) == golden(name)


def test_packs_are_written_byte_for_byte():
    blobs = MemoryBlobs()
    writer = GrowingPackWriter(blobs, lambda: PACK_ID)
    for name in PAYLOADS:
        writer.append(golden(name))
    assert blobs.get(f"packs/11/{PACK_ID}.pack") == golden("pack")


def test_old_packs_are_read():
    blobs = MemoryBlobs()
    blobs.put(pack.pack_key(PACK_ID), golden("pack"))
    assert pack.decode_header(golden("pack")) == PACK_ID
    key = DataKey(KEY_ID, SECRET)
    digests = [header.digest(key) for _, header in pack.scan_pack(blobs, PACK_ID)]
    assert digests == [sha256(payload) for _, payload in PAYLOADS.values()]
    fields = b"CRYP" + bytes([1, 0, 0, 0]) + bytes.fromhex(PACK_ID.replace("-", "")) + bytes(4)
    assert golden("pack")[:32] == fields + struct.pack(">I", zlib.crc32(fields))


def test_old_wrapped_keys_unwrap():
    master = MasterKey("master 1", SECRET)
    assert master.unwrap(golden("wrapped-key"), b"vault 1") == b"the data key"
    head = b"CRYW" + bytes([1, 8]) + b"master 1"
    assert golden("wrapped-key") == head + NONCE + AESGCM(SECRET).encrypt(NONCE, b"the data key", head + b"vault 1")


def table(title):
    """Return the rows (offset, size) of a byte table in docs/reference/formats.md, without sizes given in words."""
    text = (project.ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]
    return [tuple(map(int, row)) for row in re.findall(r"^\| (\d+) +\| (\d+) +\|", section, re.MULTILINE)]


@pytest.mark.parametrize(
    ("title", "size"),
    [("Envelope", envelope.HEADER_BYTES), ("Pack", pack.PACK_HEADER_BYTES), ("Wrapped key", len(keyring.MAGIC) + 2)],
)
def test_the_byte_tables_add_up(title, size):
    rows = table(title)
    assert [offset for offset, _ in rows] == [sum(width for _, width in rows[:index]) for index in range(len(rows))]
    assert sum(width for _, width in rows) == size

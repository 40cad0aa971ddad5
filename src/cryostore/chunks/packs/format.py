"""Pack format: the name of a pack, and the header that its envelopes follow.

Byte table: docs/reference/formats.md, "Pack".
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator

from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.envelope import EnvelopeHeader, scan
from cryostore.core.errors import DamagedDataError, UnknownFormatError

MAGIC = b"CRYP"
VERSION = 1
FIELDS = struct.Struct(">4sB3x16s4x")
CHECK = struct.Struct(">I")
PACK_HEADER_BYTES = FIELDS.size + CHECK.size

PREFIX = "packs/"
SUFFIX = ".pack"


def pack_key(pack_id: str) -> str:
    """Return the blob key of a pack. The last two digits of the id spread packs over 256 directories."""
    return f"{PREFIX}{pack_id[-2:].lower()}/{pack_id}{SUFFIX}"


def encode_header(pack_id: str) -> bytes:
    """Return the first bytes of a pack."""
    fields = FIELDS.pack(MAGIC, VERSION, uuid.UUID(pack_id).bytes)
    return fields + CHECK.pack(zlib.crc32(fields))


def decode_header(data: bytes) -> str:
    """Return the id in a pack header. Raises DamagedDataError, or UnknownFormatError for a later format."""
    if len(data) < PACK_HEADER_BYTES:
        raise DamagedDataError("a pack is cut short")
    if data[:4] != MAGIC or CHECK.unpack_from(data, FIELDS.size) != (zlib.crc32(data[: FIELDS.size]),):
        raise DamagedDataError("a pack's header is damaged")
    _, version, pack_id = FIELDS.unpack_from(data)
    if version != VERSION:
        raise UnknownFormatError(f"a pack has format {version}")
    return str(uuid.UUID(bytes=pack_id)).upper()


def list_packs(blobs: BlobStore, after: str = "") -> Iterator[str]:
    """Yield the ids of all packs in the order of their keys, after the pack `after`."""
    for key in blobs.list(PREFIX, pack_key(after) if after else ""):
        name = key.rpartition("/")[2]
        if name.endswith(SUFFIX):
            yield name.removesuffix(SUFFIX)


def scan_pack(blobs: BlobStore, pack_id: str) -> Iterator[tuple[int, EnvelopeHeader]]:
    """Yield the offset and header of every whole envelope of a pack; skip damaged areas and a torn tail.

    Reads the pack into memory. A damaged pack header does not hide the envelopes.
    """
    return scan(blobs.get(pack_key(pack_id)))

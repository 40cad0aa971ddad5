"""A sealed chunk: what the agent sends to a store that is to learn nothing from it.

Byte table: docs/reference/archive.md.

Sealing is deterministic: equal bytes at an equal place, under one key, make equal chunks, so that a store has them once
and a killed run need not send them again. Each place has an AES key of its own, and the nonce is a keyed digest of what
is encrypted (a synthetic one), so that no pair of key and nonce ever serves two plaintexts.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.formats.padding import padded_length
from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.keys.cipher import KEY_ID_BYTES, NONCE_BYTES, keyed_digest, seal, unseal
from cryostore.core.compression import Compression, decompress
from cryostore.core.digest import Buffer
from cryostore.core.errors import DamagedDataError, KeyUnavailableError
from cryostore.core.limits import KIB
from cryostore.core.memory import unfilled

MAGIC = b"CRYA"
VERSION = 1
HEAD = struct.Struct("<4sBBxx16s12s")
"""magic, version, kind, 0, key id, nonce"""
INNER = struct.Struct("<BxxxII")
"""codec, 0, bytes of the payload, bytes of it as encoded; then these, then zeros"""
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
COMPRESSION = Compression(level=3)  # before it is sealed, since nothing compresses it afterwards


class Kind(IntEnum):
    """What a sealed chunk holds. The values are part of the format."""

    CONTENT = 1
    CATALOG = 2
    TABLE = 3
    HEAD = 4


QUANTA_BYTES = {Kind.CONTENT: 32 * KIB, Kind.CATALOG: 16 * KIB, Kind.TABLE: 4 * KIB, Kind.HEAD: 4 * KIB}
"""What the lengths of sealed chunks are multiples of, without head and tag."""


def seal_chunk(key: ArchiveKey, kind: Kind, place: bytes, payload: Buffer) -> bytes:
    """Compress, pad and encrypt. `place` must be given again to open it."""
    inner = _padded(kind, payload)
    bound = bytes([kind]) + place
    nonce = keyed_digest(key.nonce_key(), keyed_digest(key.nonce_key(), inner) + bound)[:NONCE_BYTES]
    head = HEAD.pack(MAGIC, VERSION, kind, key.key_id, nonce)
    return head + seal(key.place_key(bound), nonce, inner, head + place)


def open_chunk(keys: Mapping[bytes, ArchiveKey], kind: Kind, place: bytes, sealed: Buffer) -> Buffer:
    """The payload. Raises KeyUnavailableError without its key, ArchiveDamagedError if bytes or place are others."""
    key_id, nonce = _head(kind, sealed)
    if (key := keys.get(key_id)) is None:
        raise KeyUnavailableError(
            f"this was sealed with archive key {key_id.hex()}, which the agent key given does not open",
            hint="give the key file that can with --key; `cryo agent-key list` shows which there are",
        )
    view = memoryview(sealed)
    try:
        bound = bytes([kind]) + place
        inner = memoryview(unseal(key.place_key(bound), nonce, view[HEAD.size :], bytes(view[: HEAD.size]) + place))
        codec, length, encoded_bytes = INNER.unpack_from(inner)
        encoded = inner[INNER.size : INNER.size + encoded_bytes]
        if length > PAYLOAD_BYTES_MAX or len(encoded) != encoded_bytes:
            raise DamagedDataError("its inner head is wrong")  # noqa: TRY301 - as if it did not open
        return decompress(codec, encoded, length)
    except (DamagedDataError, struct.error):
        raise ArchiveDamagedError(
            f"a sealed chunk of the {kind.name.lower()} is damaged, or not in its place",
            hint="`cryo verify` names what it hurts; another recovery point may be whole",
        ) from None


def key_id_of(sealed: Buffer) -> bytes:
    """The id of the archive key of a head. Raises ArchiveDamagedError."""
    return _head(Kind.HEAD, sealed)[0]


def is_sealed(data: Buffer) -> bool:
    """Whether these bytes say that they are sealed."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def _head(kind: Kind, sealed: Buffer) -> tuple[bytes, bytes]:
    if len(sealed) < HEAD.size:
        raise ArchiveDamagedError(f"a sealed chunk of the {kind.name.lower()} is cut short")
    magic, version, found, key_id, nonce = HEAD.unpack_from(sealed)
    if magic == MAGIC and version > VERSION:
        raise ArchiveDamagedError(
            f"a sealed chunk has format {version}, unknown to this version",
            hint="read it with the version that wrote it, or a later one",
        )
    if (magic, version, found) != (MAGIC, VERSION, kind) or len(key_id) != KEY_ID_BYTES:
        raise ArchiveDamagedError(f"this is no sealed chunk of the {kind.name.lower()}")
    return key_id, nonce


def _padded(kind: Kind, payload: Buffer) -> bytearray:
    codec, encoded = COMPRESSION.compress(payload)
    used = INNER.size + len(encoded)
    length = padded_length(used, QUANTA_BYTES[kind])
    inner = unfilled(length)
    INNER.pack_into(inner, 0, codec, len(payload), len(encoded))
    inner[INNER.size : used] = encoded
    inner[used:] = bytes(length - used)
    return inner

"""Sealed objects and their chunks: compressed, padded and encrypted by the agent.

Tables: docs/reference/archive.md. The store lists only the lengths and digests of sealed chunks; the chunk table,
itself sealed, has the lengths and ids of their plain bytes.

Trust in an archive starts at the head of the listing. That head holds the header, the header holds the marks of the
heads of all content objects, each head holds the ids of its table's chunks, and each table holds the ids of the content
chunks. So no part of another time, place or archive can be passed off as a part of this one.

Sealing is deterministic: under one key, equal bytes in an equal context make equal chunks. So a store keeps them once,
and a resumed run need not send them again. Each context has its own AES key, and the nonce is a keyed digest of the
plaintext (a synthetic nonce), so that no pair of key and nonce ever serves two plaintexts.

Padding rounds lengths up to about five significant bits, as Padme does, and to whole quanta below. So a length tells
only its size class: each doubling has about thirty of them. It tells nothing about a few bytes.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

import msgspec

from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.cipher import KEY_ID_BYTES, NONCE_BYTES, keyed_digest, seal, unseal
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.core.compression import Compression, decompress
from cryostore.core.digest import Buffer
from cryostore.core.errors import DamagedDataError, KeyUnavailableError
from cryostore.core.limits import KIB
from cryostore.core.process_resources import unfilled

FORMAT = 1
MARK_BYTES = 16
ROW = struct.Struct("<I32s")
"""bytes of the payload, chunk id"""
ROWS_MAX = 100_000
"""In one chunk of a table."""
MAGIC = b"CRYA"
VERSION = 1
HEAD = struct.Struct("<4sBBxx16s12s")
"""magic, version, kind, 0, key id, nonce"""
INNER = struct.Struct("<BxxxII")
"""codec, 0, bytes of the payload, bytes of it as encoded; then these, then zeros"""
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
COMPRESSION = Compression(level=3)  # the agent must do it: encrypted bytes do not compress


class ChunkKind(IntEnum):
    """The kind of content in a sealed chunk. The values are part of the format."""

    CONTENT = 1
    CATALOG = 2
    TABLE = 3
    HEAD = 4


QUANTA_BYTES = {
    ChunkKind.CONTENT: 32 * KIB,
    ChunkKind.CATALOG: 16 * KIB,
    ChunkKind.TABLE: 4 * KIB,
    ChunkKind.HEAD: 4 * KIB,
}
"""Lengths of sealed chunks, without head and tag, are multiples of these."""


def seal_chunk(key: ArchiveKey, kind: ChunkKind, context: bytes, payload: Buffer) -> bytes:
    """Compress, pad and encrypt a payload. The chunk opens only with the same kind and context."""
    inner = _padded(kind, payload)
    bound = bytes([kind]) + context
    nonce = keyed_digest(key.nonce_key(), keyed_digest(key.nonce_key(), inner) + bound)[:NONCE_BYTES]
    head = HEAD.pack(MAGIC, VERSION, kind, key.key_id, nonce)
    return head + seal(key.chunk_key(bound), nonce, inner, head + context)


def open_chunk(keys: Mapping[bytes, ArchiveKey], kind: ChunkKind, context: bytes, sealed: Buffer) -> Buffer:
    """The payload of a sealed chunk.

    Raises KeyUnavailableError if `keys` lacks its key, ArchiveDamagedError if the bytes, the kind or the context differ
    from those that were sealed.
    """
    key_id, nonce = _head(kind, sealed)
    if (key := keys.get(key_id)) is None:
        raise KeyUnavailableError(
            f"this was sealed with archive key {key_id.hex()}, which the given agent key does not open",
            hint="give the right key file with --key; `cryo agent-key list` shows the recipients",
        )
    view = memoryview(sealed)
    try:
        bound = bytes([kind]) + context
        inner = memoryview(unseal(key.chunk_key(bound), nonce, view[HEAD.size :], bytes(view[: HEAD.size]) + context))
        codec, length, encoded_bytes = INNER.unpack_from(inner)
        encoded = inner[INNER.size : INNER.size + encoded_bytes]
        if length > PAYLOAD_BYTES_MAX or len(encoded) != encoded_bytes:
            raise DamagedDataError("its inner head is wrong")  # noqa: TRY301 - handled like a failed decryption
        return decompress(codec, encoded, length)
    except (DamagedDataError, struct.error):
        raise ArchiveDamagedError(
            f"a sealed chunk of the {kind.name.lower()} is damaged, or not in its place",
            hint="`cryo verify` names the affected files; another recovery point may be intact",
        ) from None


def key_id_of(sealed: Buffer) -> bytes:
    """The id of the archive key that sealed a head. Raises ArchiveDamagedError."""
    return _head(ChunkKind.HEAD, sealed)[0]


def is_sealed(data: Buffer) -> bool:
    """Whether these bytes start like a sealed chunk."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def _head(kind: ChunkKind, sealed: Buffer) -> tuple[bytes, bytes]:
    if len(sealed) < HEAD.size:
        raise ArchiveDamagedError(f"a sealed chunk of the {kind.name.lower()} is cut short")
    magic, version, found, key_id, nonce = HEAD.unpack_from(sealed)
    if magic == MAGIC and version > VERSION:
        raise ArchiveDamagedError(
            f"a sealed chunk has format {version}, unknown to this version",
            hint="read it with the version that wrote it, or a later one",
        )
    if (magic, version, found) != (MAGIC, VERSION, kind) or len(key_id) != KEY_ID_BYTES:
        raise ArchiveDamagedError(f"this is not a sealed chunk of the {kind.name.lower()}")
    return key_id, nonce


def _padded(kind: ChunkKind, payload: Buffer) -> bytearray:
    codec, encoded = COMPRESSION.compress(payload)
    used = INNER.size + len(encoded)
    length = padded_length(used, QUANTA_BYTES[kind])
    inner = unfilled(length)
    INNER.pack_into(inner, 0, codec, len(payload), len(encoded))
    inner[INNER.size : used] = encoded
    inner[used:] = bytes(length - used)
    return inner


def padded_length(length: int, quantum_bytes: int) -> int:
    """The least allowed length that holds `length` bytes: longer by at most 1/16 or one quantum."""
    exponent = max(length, 2).bit_length() - 1
    step = max(1 << (exponent - exponent.bit_length()), quantum_bytes)
    return max(-(-length // step), 1) * step


class Recipient(msgspec.Struct, frozen=True):
    """A public key that the archive is encrypted for, and its name for people."""

    public: bytes
    name: str


class SealedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a sealed object. Only the head of the listing has `header` and `recipients`."""

    format: int = FORMAT
    resource: str
    """The resource that the archive is a backup of, so that none is taken for another's."""
    table: list[bytes]
    """The ids of the chunks of the object's table, which are the object's last chunks."""
    header: bytes = b""
    recipients: list[Recipient] = []

    def encode(self) -> bytes:
        """The head as JSON, not sealed yet."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SealedHead:
        """Read the JSON of an opened head. Raises ArchiveDamagedError."""
        try:
            head = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            raise ArchiveDamagedError("the head of a sealed object is damaged") from None
        if head.format != FORMAT:
            raise ArchiveDamagedError(
                f"a sealed object has format {head.format}, unknown to this version",
                hint="read it with the version that wrote it, or a later one",
            )
        return head


def mark_of(key: ArchiveKey, head: bytes) -> bytes:
    """The mark by which the header identifies the head of a content object."""
    return key.chunk_id(head)[:MARK_BYTES]


class ChunkFacts(NamedTuple):
    """The length and the chunk id of the plain bytes of a sealed chunk."""

    length: int
    chunk_id: bytes


class ChunkTable:
    """The facts of each chunk of a sealed object, by the index of the chunk, in 36 bytes each."""

    def __init__(self, data: bytes = b"") -> None:
        if len(data) % ROW.size:
            raise ArchiveDamagedError("the table of a sealed object is cut short")
        self._data = bytearray(data)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._data) // ROW.size

    def __getitem__(self, index: int) -> ChunkFacts:
        """The facts of a chunk. Raises ArchiveDamagedError if the table does not reach that far."""
        if not 0 <= index < len(self):
            raise ArchiveDamagedError(f"a sealed object has a chunk {index} that its table does not list")
        return ChunkFacts._make(ROW.unpack_from(self._data, index * ROW.size))

    def set(self, index: int, facts: ChunkFacts) -> None:
        """Set the facts of a chunk. Chunks before it may be set later; those that never are stay empty. Thread safe."""
        with self._lock:
            missing = index + 1 - len(self)
            if missing > 0:
                self._data += bytes(missing * ROW.size)
            ROW.pack_into(self._data, index * ROW.size, *facts)

    def parts(self) -> Iterator[bytes]:
        """The table in parts that each fit into a chunk."""
        step = ROWS_MAX * ROW.size
        for start in range(0, len(self._data), step):
            yield bytes(self._data[start : start + step])

"""Envelopes: the sealed form of one payload. Byte table: docs/reference/formats.md, "Envelope".

An envelope is self-contained: with its data key it opens wherever it lies. Without a key the envelopes of a pack can
still be listed, but not even the digest of their content is readable.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from cryostore.chunks.cipher import TAG_BYTES, DataKey, new_nonce
from cryostore.core.compression import Codec, Compression, decompress
from cryostore.core.digest import Buffer, Payload
from cryostore.core.errors import DamagedDataError, UnknownFormatError
from cryostore.core.process_resources import unfilled

MAGIC = b"CRYE"
VERSION = 1
FLAGS = 0
FIELDS = struct.Struct(">4sBBBB16s16s12s32sII")
CHECK = struct.Struct(">I")
HEADER_BYTES = FIELDS.size + CHECK.size
ENVELOPE_OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
LEVEL = 2  # a third less time than level 3 for 5 % more bytes: compression is most of what a first backup costs
LARGE_HASH_LOG = 15  # 16 at this level: with half of that in the nearer cache, a tenth less time for 1 % more bytes
COMPRESS_BYTES_MIN = 64
COMPRESSION = Compression(level=LEVEL, bytes_min=COMPRESS_BYTES_MIN, large_hash_log=LARGE_HASH_LOG)


class PayloadKind(IntEnum):
    """What a payload is. The values are part of the storage format."""

    CHUNK = 1
    METADATA = 2
    RECORD = 3


class EnvelopeHeader(NamedTuple):
    """The plain header of an envelope. `sealed_bytes` counts ciphertext and tag, not the header."""

    kind: int
    codec: int
    key_id: bytes
    salt: bytes
    nonce: bytes
    masked_digest: bytes
    payload_bytes: int
    sealed_bytes: int

    @property
    def envelope_bytes(self) -> int:
        """Length of the whole envelope."""
        return HEADER_BYTES + self.sealed_bytes

    def encode(self) -> bytes:
        """Return the HEADER_BYTES bytes of the header."""
        kind, codec, *rest = self
        fields = FIELDS.pack(MAGIC, VERSION, kind, codec, FLAGS, *rest)
        return fields + CHECK.pack(zlib.crc32(fields))

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> EnvelopeHeader:
        """Decode the header at `offset`. Raises DamagedDataError, or UnknownFormatError for a later format."""
        if len(data) < offset + HEADER_BYTES:
            raise DamagedDataError("an envelope is cut short")
        magic, version, kind, codec, flags, *rest = FIELDS.unpack_from(data, offset)
        (check,) = CHECK.unpack_from(data, offset + FIELDS.size)
        if magic != MAGIC or check != zlib.crc32(memoryview(data)[offset : offset + FIELDS.size]):
            raise DamagedDataError("an envelope's header is damaged")
        if version != VERSION or flags != FLAGS or codec not in CODECS:
            raise UnknownFormatError(f"an envelope has format {version}.{flags}.{codec}")
        header = cls(kind, codec, *rest)
        if header.sealed_bytes < TAG_BYTES:
            raise DamagedDataError("an envelope's header is damaged")
        return header

    def digest(self, key: DataKey) -> bytes:
        """Return the digest of the payload according to the header. Only opening the envelope proves it."""
        return key.cipher(self.salt).mask(self.masked_digest, self.nonce)


CODECS = frozenset(Codec)


def seal(
    payload: Payload, key: DataKey, *, salt: bytes, kind: PayloadKind = PayloadKind.CHUNK, nonce: bytes = b""
) -> bytearray:
    """Return the envelope of a payload, after opening it as a test: memory and libraries can fail, too.

    `nonce` is for tests only: no two envelopes of one key and salt may share a nonce. Raises DamagedDataError if the
    envelope does not give the payload back.
    """
    nonce = nonce or new_nonce()
    cipher = key.cipher(salt)
    codec, body = COMPRESSION.compress(payload.data)
    masked_digest = cipher.mask(payload.sha256, nonce)
    header = EnvelopeHeader(kind, codec, key.key_id, salt, nonce, masked_digest, len(payload), len(body) + TAG_BYTES)
    head = header.encode()
    envelope = unfilled(header.envelope_bytes)
    envelope[:HEADER_BYTES] = head
    cipher.seal_into(nonce, body, head + payload.sha256, memoryview(envelope)[HEADER_BYTES:])
    del body  # it may be as large as the payload
    proof = open_envelope(envelope, key, payload.sha256, len(payload))
    if not proof.startswith(payload.data):  # lengths agree; unlike ==, as fast for a memoryview as for bytes
        raise DamagedDataError("a payload did not survive being sealed: this machine's memory may be failing")
    return envelope


def open_envelope(envelope: Buffer, key: DataKey, digest: bytes, length: int) -> bytes | bytearray:
    """Return the payload with this digest and length. Raises DamagedDataError; never returns a wrong byte.

    It does not compute the digest again: the tag of the envelope authenticates the digest together with the payload.
    """
    codec, body = unseal(envelope, key, digest, length)
    return decompress(codec, body, length)


def unseal(envelope: Buffer, key: DataKey, digest: bytes, length: int) -> tuple[int, bytes | bytearray]:
    """As `open_envelope`, but return the codec and the encoded payload: authenticated, not decompressed."""
    header = EnvelopeHeader.decode(envelope)
    if header.envelope_bytes != len(envelope):
        raise DamagedDataError(f"an envelope has {header.envelope_bytes} bytes, and {len(envelope)} were read")
    if header.key_id != key.key_id:
        raise DamagedDataError(f"an envelope is sealed with key {header.key_id.hex()}, not {key.key_id.hex()}")
    if header.payload_bytes != length:
        raise DamagedDataError(f"an envelope holds {header.payload_bytes} bytes, not {length}")
    view = memoryview(envelope)
    head = bytes(view[:HEADER_BYTES])
    return header.codec, key.cipher(header.salt).open(header.nonce, view[HEADER_BYTES:], head + digest)


def scan(data: bytes | bytearray, offset: int = 0) -> Iterator[tuple[int, EnvelopeHeader]]:
    """Yield the offset and header of each envelope in `data` from `offset` on. Needs no key.

    Skips bytes that are no envelope by searching for the next one. Does not verify bodies: opening an envelope does.
    """
    while (offset := data.find(MAGIC, offset)) >= 0:
        try:
            header = EnvelopeHeader.decode(data, offset)
        except DamagedDataError:
            offset += 1
            continue
        if offset + header.envelope_bytes > len(data):
            offset += 1  # cut short, or not written yet
            continue
        yield offset, header
        offset += header.envelope_bytes

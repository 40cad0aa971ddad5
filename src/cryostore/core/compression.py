"""Compression with zstd, of data that it shrinks. The only home of the compression library.

The store compresses chunks before it encrypts them. The agent does the same for sealed archives, with its own level.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import TypeVar

import zstandard

from cryostore.core.digest import Buffer, Payload
from cryostore.core.errors import DamagedDataError
from cryostore.core.limits import KIB

LARGE_BYTES_MIN = 256 * KIB
WINDOW_LOG = 22
"""Matches reach back 4 MiB, the greatest length of a chunk of a file."""
BLOCK_BYTES = 4 * KIB
BLOCKS_LEVEL = 3
"""For large data of whole blocks, such as disk images: 45 % more CPU time than other large data, 7 % fewer bytes."""
SAMPLE_BYTES = 1024
SAMPLES = 8
SAMPLE_LEVEL = 1
GAIN_SHARE = 256
"""Compression pays if it saves at least one byte in this many."""
DENSE_SHARE = 4
"""Data is dense if compression saves less than one byte in this many of its samples."""
TEXT_SHARE = 32
"""Data is text if at most one byte in this many of its samples is not one of TEXT."""
TEXT = bytes(byte for byte in range(256) if byte in b"\t\n\r" or 0x20 <= byte < 0x7F)

Encoded = TypeVar("Encoded", bound=Buffer)


class Codec(IntEnum):
    """How a payload is encoded. The values are part of the formats of envelopes and of sealed chunks."""

    STORED = 0
    ZSTD = 1


class CompressedPayload(Payload):
    """A payload as a zstd frame.

    `data` and the length are those of the frame, `sha256` is that of the decoded bytes.
    """

    def __init__(self, data: Buffer, *, sha256: bytes) -> None:
        super().__init__(data, sha256=sha256)


class _Engines(threading.local):
    """Compressors of the library, one set per thread: they are not thread safe."""

    def __init__(self, level: int, large_hash_log: int | None) -> None:
        self.small = zstandard.ZstdCompressor(level=level)
        self.code = self.blocks = self.text = self.dense = self.small
        if large_hash_log is not None:
            code = zstandard.ZstdCompressionParameters.from_level(level, hash_log=large_hash_log)
            self.code = zstandard.ZstdCompressor(compression_params=code)
            self.blocks = zstandard.ZstdCompressor(level=BLOCKS_LEVEL)
            self.text = _fast(hash_log=17)
            self.dense = _fast(hash_log=16)
        self.sampler = zstandard.ZstdCompressor(level=SAMPLE_LEVEL)


def _fast(*, hash_log: int) -> zstandard.ZstdCompressor:
    """A fast compressor that finds short matches: words of a text, records among noise."""
    return zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            strategy=zstandard.STRATEGY_FAST,
            window_log=WINDOW_LOG,
            hash_log=hash_log,
            chain_log=hash_log,
            search_log=1,
            min_match=5,
            target_length=0,
        )
    )


class _Decoders(threading.local):
    """The decompressor, one per thread. It decodes frames of any level."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_decoders = _Decoders()


class Compression:
    """Compresses at one level, and leaves data shorter than `bytes_min` as it is. Thread safe.

    All other data is tried as a whole, because a sample cannot show that nothing repeats at a distance. The library
    copies stretches that do not shrink, at more than 1 GB/s. With `large_hash_log`, samples of large data choose how it
    is compressed: text and dense data with shorter matches, data of whole blocks at BLOCKS_LEVEL, and other data at
    `level` with a hash table of this size, as a power of two.
    """

    def __init__(self, *, level: int, bytes_min: int = 0, large_hash_log: int | None = None) -> None:
        self._engines = _Engines(level, large_hash_log)
        self._chooses = large_hash_log is not None
        self._bytes_min = bytes_min

    def compress(self, data: Buffer) -> tuple[Codec, Buffer]:
        """Encode with zstd if that shrinks the data, else return the same object."""
        size = len(data)
        if size >= self._bytes_min:
            large = self._chooses and size >= LARGE_BYTES_MIN
            encoded = (self._chosen(data) if large else self._engines.small).compress(data)
            if _pays(len(encoded), size, GAIN_SHARE):
                return Codec.ZSTD, encoded
        return Codec.STORED, data

    def _chosen(self, data: Buffer) -> zstandard.ZstdCompressor:
        """The compressor for large data."""
        view = memoryview(data)
        step = len(view) // SAMPLES
        sample = b"".join(view[start : start + SAMPLE_BYTES] for start in range(0, SAMPLES * step, step))
        if len(sample.translate(None, TEXT)) * TEXT_SHARE <= len(sample):
            return self._engines.text
        if not _pays(len(self._engines.sampler.compress(sample)), len(sample), DENSE_SHARE):
            return self._engines.dense
        return self._engines.code if len(view) % BLOCK_BYTES else self._engines.blocks


def decompress(codec: int, data: Encoded, length: int) -> Encoded | bytes:
    """Decode exactly `length` bytes, without allocating more. Raises DamagedDataError for any other length."""
    if codec == Codec.STORED:
        if len(data) != length:
            raise DamagedDataError(f"{len(data)} bytes are stored, not {length}")
        return data
    if codec != Codec.ZSTD:
        raise DamagedDataError(f"codec {codec} does not exist")
    try:
        if zstandard.frame_content_size(data) != length:
            raise DamagedDataError(f"the compressed bytes are not {length} bytes of payload")
        return _decoders.decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedDataError(f"the compressed bytes cannot be decoded: {error}") from None


def decompress_whole(data: Buffer, bytes_max: int) -> bytes:
    """Decode a zstd frame.

    Raises DamagedDataError if it is none, is cut short, or holds more than `bytes_max` bytes.
    """
    try:
        length = zstandard.frame_content_size(data)
        if length < 0:  # the frame does not state its length
            return _decoders.decompressor.decompress(data, max_output_size=bytes_max)
    except zstandard.ZstdError as error:
        raise DamagedDataError(f"these are not compressed bytes: {error}") from None
    if length > bytes_max:
        raise DamagedDataError(f"the compressed bytes claim to hold {length} bytes; at most {bytes_max} are allowed")
    return bytes(decompress(Codec.ZSTD, data, length))


def _pays(encoded_bytes: int, size: int, share: int) -> bool:
    return encoded_bytes + size // share < size

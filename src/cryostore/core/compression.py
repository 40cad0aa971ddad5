"""zstd where it pays, nothing where it does not, and a cheap way to tell. The only home of the compression library.

The store compresses what it seals, and the agent what it seals before it sends: each with a level of its own.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import TypeVar

import zstandard

from cryostore.core.digest import Buffer, Payload
from cryostore.core.errors import DamagedDataError

PROBE_LEVEL = 1
PROBE_BYTES_MIN = 16 * 1024 + 1  # below, trying costs no more than probing
LARGE_BYTES_MIN = 256 * 1024
SAMPLE_BYTES = 4096
SAMPLES_MAX = 8
GAIN_SHARE = 32  # worth it if at least one byte in 32 is saved

Encoded = TypeVar("Encoded", bound=Buffer)


class Codec(IntEnum):
    """How a payload is encoded. The values are part of the formats of envelopes and of sealed chunks."""

    STORED = 0
    ZSTD = 1


class CompressedPayload(Payload):
    """A payload whose `data` and length are those of a zstd frame; `sha256` is that of what it holds."""

    def __init__(self, data: Buffer, *, sha256: bytes) -> None:
        super().__init__(data, sha256=sha256)


class _Engines(threading.local):
    """The library's objects, one set per thread: they are not safe to share."""

    def __init__(self, level: int, large_hash_log: int | None) -> None:
        self.compressor = self.large_compressor = zstandard.ZstdCompressor(level=level)
        if large_hash_log is not None:
            parameters = zstandard.ZstdCompressionParameters.from_level(level, hash_log=large_hash_log)
            self.large_compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self.prober = zstandard.ZstdCompressor(level=PROBE_LEVEL)


class _Decoders(threading.local):
    """As above: a decoder takes what any level made."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_decoders = _Decoders()


class Compression:
    """Compresses at one level; leaves what is shorter than `bytes_min` as it is. Thread safe.

    `large_hash_log` is the size of the library's table for large data, as a power of two, in place of the level's.
    """

    def __init__(self, *, level: int, bytes_min: int = 0, large_hash_log: int | None = None) -> None:
        self._engines = _Engines(level, large_hash_log)
        self._bytes_min = bytes_min

    def compress(self, data: Buffer) -> tuple[Codec, Buffer]:
        """Encode with zstd if that shrinks the data noticeably, else give the same object back."""
        size = len(data)
        if size >= self._bytes_min and (size < PROBE_BYTES_MIN or self._looks_compressible(data)):
            engines = self._engines
            compressor = engines.large_compressor if size >= LARGE_BYTES_MIN else engines.compressor
            encoded = compressor.compress(data)
            if _pays(len(encoded), size):
                return Codec.ZSTD, encoded
        return Codec.STORED, data

    def _looks_compressible(self, data: Buffer) -> bool:
        """Try a fast level on samples spread evenly over the data: 32 KiB at most, whatever its size."""
        view = memoryview(data)
        count = min(SAMPLES_MAX, len(view) // SAMPLE_BYTES)
        step = len(view) // count
        sample = b"".join(view[start : start + SAMPLE_BYTES] for start in range(0, count * step, step))
        return _pays(len(self._engines.prober.compress(sample)), len(sample))


def decompress(codec: int, data: Encoded, length: int) -> Encoded | bytes:
    """Decode exactly `length` bytes, never allocating more; DamagedDataError if the data says otherwise."""
    if codec == Codec.STORED:
        if len(data) != length:
            raise DamagedDataError(f"{len(data)} bytes are stored, not {length}")
        return data
    if codec != Codec.ZSTD:
        raise DamagedDataError(f"there is no codec {codec}")
    try:
        if zstandard.frame_content_size(data) != length:
            raise DamagedDataError(f"the compressed bytes are not {length} bytes of payload")
        return _decoders.decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedDataError(f"the compressed bytes cannot be decoded: {error}") from None


def decompress_whole(data: Buffer, bytes_max: int) -> bytes:
    """Decode a zstd frame; DamagedDataError if it is none, cut short, or holds more than `bytes_max`."""
    try:
        length = zstandard.frame_content_size(data)
        if length < 0:  # it does not say
            return _decoders.decompressor.decompress(data, max_output_size=bytes_max)
    except zstandard.ZstdError as error:
        raise DamagedDataError(f"no compressed bytes: {error}") from None
    if length > bytes_max:
        raise DamagedDataError(f"the compressed bytes claim to hold {length} bytes, where {bytes_max} are the most")
    return bytes(decompress(Codec.ZSTD, data, length))


def _pays(encoded_bytes: int, size: int) -> bool:
    return encoded_bytes + size // GAIN_SHARE < size

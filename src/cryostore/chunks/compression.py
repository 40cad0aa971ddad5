"""zstd where it pays, nothing where it does not, and a cheap way to tell. The only home of the compression library."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from cryostore.core.digest import Buffer
from cryostore.core.errors import DamagedDataError

LEVEL = 2  # a third less time than level 3 for 5 % more bytes: compression is most of what a first backup costs
PROBE_LEVEL = 1
COMPRESS_BYTES_MIN = 64
PROBE_BYTES_MIN = 16 * 1024 + 1  # below, trying costs no more than probing
SAMPLE_BYTES = 4096
SAMPLES_MAX = 8
GAIN_SHARE = 32  # worth it if at least one byte in 32 is saved


class Codec(IntEnum):
    """How an envelope's payload is encoded. The values are part of the storage format."""

    STORED = 0
    ZSTD = 1


class _Engines(threading.local):
    """The library's objects, one set per thread: they are not safe to share."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.prober = zstandard.ZstdCompressor(level=PROBE_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_engines = _Engines()


def compress(data: Buffer) -> tuple[Codec, Buffer]:
    """Encode with zstd if that shrinks the data noticeably, else give the same object back."""
    size = len(data)
    if size >= COMPRESS_BYTES_MIN and (size < PROBE_BYTES_MIN or _looks_compressible(data)):
        encoded = _engines.compressor.compress(data)
        if _pays(len(encoded), size):
            return Codec.ZSTD, encoded
    return Codec.STORED, data


def decompress(codec: int, data: bytes | bytearray, length: int) -> bytes | bytearray:
    """Decode exactly `length` bytes, never allocating more; DamagedDataError if the data says otherwise."""
    if codec == Codec.STORED:
        if len(data) != length:
            raise DamagedDataError(f"{len(data)} bytes are stored, not {length}")
        return data
    try:
        if zstandard.frame_content_size(data) != length:
            raise DamagedDataError(f"the compressed bytes are not {length} bytes of payload")
        return _engines.decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedDataError(f"the compressed bytes cannot be decoded: {error}") from None


def _looks_compressible(data: Buffer) -> bool:
    """Try a fast level on samples spread evenly over the data: 32 KiB at most, whatever its size."""
    view = memoryview(data)
    count = min(SAMPLES_MAX, len(view) // SAMPLE_BYTES)
    step = len(view) // count
    sample = b"".join(view[start : start + SAMPLE_BYTES] for start in range(0, count * step, step))
    return _pays(len(_engines.prober.compress(sample)), len(sample))


def _pays(encoded_bytes: int, size: int) -> bool:
    return encoded_bytes + size // GAIN_SHARE < size

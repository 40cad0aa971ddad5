"""zstd before bytes are sealed, since nothing compresses them afterwards. The agent's only home of the library."""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from cryostore.core.digest import Buffer
from cryostore.core.errors import DamagedDataError

LEVEL = 3
PROBE_LEVEL = 1
PROBE_BYTES_MIN = 16 * 1024 + 1
SAMPLE_BYTES = 4096
SAMPLES_MAX = 8
GAIN_SHARE = 32  # worth it if at least one byte in 32 is saved


class Codec(IntEnum):
    """How a sealed chunk's payload is encoded. The values are part of the format."""

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
    if len(data) < PROBE_BYTES_MIN or _looks_compressible(data):
        encoded = _engines.compressor.compress(data)
        if _pays(len(encoded), len(data)):
            return Codec.ZSTD, encoded
    return Codec.STORED, data


def decompress(codec: int, data: Buffer, length: int) -> Buffer:
    """Decode exactly `length` bytes, never allocating more; DamagedDataError if the data says otherwise."""
    if codec == Codec.STORED and len(data) == length:
        return data
    try:
        if codec == Codec.ZSTD and zstandard.frame_content_size(data) == length:
            return _engines.decompressor.decompress(data)
    except zstandard.ZstdError:
        pass
    raise DamagedDataError("the compressed bytes cannot be decoded")


def _looks_compressible(data: Buffer) -> bool:
    """Try a fast level on samples spread evenly over the data."""
    view = memoryview(data)
    count = min(SAMPLES_MAX, len(view) // SAMPLE_BYTES)
    step = len(view) // count
    sample = b"".join(view[start : start + SAMPLE_BYTES] for start in range(0, count * step, step))
    return _pays(len(_engines.prober.compress(sample)), len(sample))


def _pays(encoded_bytes: int, size: int) -> bool:
    return encoded_bytes + size // GAIN_SHARE < size

"""Bodies for measurement: all distinct, cheap to make, with known digests.

A body is a random base, shared by all bodies of one payload, followed by 16 unique bytes. The digest of the base is
computed once and continued, so hashing a thousand bodies costs no more than hashing one. No two bodies are equal, in
one run or between runs, so deduplication never helps.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from typing import Final

SUFFIX_BYTES: Final = 16
BLOCK_BYTES: Final = 32 * 1024
KINDS: Final = ("random", "half")


class Payload:
    """Bodies of `body_bytes` bytes. "random" does not compress; in "half", every second 32 KiB are log lines."""

    def __init__(self, body_bytes: int, kind: str = "random") -> None:
        if body_bytes < SUFFIX_BYTES:
            raise ValueError(f"a body has at least {SUFFIX_BYTES} bytes")
        self.body_bytes = body_bytes
        self.base = _base(body_bytes - SUFFIX_BYTES, kind)
        self._nonce = secrets.token_bytes(SUFFIX_BYTES // 2)
        self._hash = hashlib.sha256(self.base)

    def suffix(self, index: int) -> bytes:
        """Return the last 16 bytes of body `index`."""
        return self._nonce + index.to_bytes(SUFFIX_BYTES // 2, "big")

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 of body `index`."""
        state = self._hash.copy()
        state.update(self.suffix(index))
        return state.digest()

    def body(self, index: int) -> bytes:
        """Return the whole body `index`."""
        return self.base + self.suffix(index)


def _base(length: int, kind: str) -> bytes:
    if kind == "random":
        return secrets.token_bytes(length)
    if kind == "half":
        pairs = length // (2 * BLOCK_BYTES) + 1
        return b"".join(secrets.token_bytes(BLOCK_BYTES) + _log_lines(BLOCK_BYTES) for _ in range(pairs))[:length]
    raise ValueError(f"a payload is one of {', '.join(KINDS)}")


def _log_lines(length: int) -> bytes:
    lines = []
    size = 0
    while size < length:
        line = (
            f'{{"time": {random.randrange(10**12)}, "level": "info", "message": "object stored", '
            f'"name": "volume/{random.randrange(10**6)}", "seconds": {random.random():.6f}}}\n'
        ).encode()
        lines.append(line)
        size += len(line)
    return b"".join(lines)[:length]

"""What the bytes cost at the least: SHA-256 and AES-256-GCM over them on one core, by the libraries the server uses."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@dataclass(frozen=True)
class Floor:
    """CPU seconds for each GB (10^9 bytes), by one ordinary call for each body."""

    sha256: float
    encrypt: float
    decrypt: float

    @property
    def put(self) -> float:
        """What a PutChunk cannot do without."""
        return self.sha256 + self.encrypt

    @property
    def get(self) -> float:
        """What a GetChunk cannot do without."""
        return self.decrypt


def measure(body_bytes: int, seconds: float) -> Floor:
    """Takes about three times `seconds`."""
    body = secrets.token_bytes(body_bytes)
    cipher = AESGCM(secrets.token_bytes(32))
    nonce = secrets.token_bytes(12)
    sealed = cipher.encrypt(nonce, body, None)
    return Floor(
        sha256=_cpu_seconds_per_gigabyte(lambda: hashlib.sha256(body).digest(), body_bytes, seconds),
        encrypt=_cpu_seconds_per_gigabyte(lambda: cipher.encrypt(nonce, body, None), body_bytes, seconds),
        decrypt=_cpu_seconds_per_gigabyte(lambda: cipher.decrypt(nonce, sealed, None), body_bytes, seconds),
    )


def _cpu_seconds_per_gigabyte(work: Callable[[], object], body_bytes: int, seconds: float) -> float:
    work()
    calls = 0
    start = time.process_time()
    deadline = start + seconds
    while time.process_time() < deadline:
        for _ in range(max(1, 1_000_000 // body_bytes)):  # so that reading the clock does not count
            work()
            calls += 1
    return (time.process_time() - start) / (calls * body_bytes) * 1e9

"""The least CPU cost of the bytes: SHA-256 and AES-256-GCM on one core, with the libraries of the server."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@dataclass(frozen=True)
class Floor:
    """CPU seconds per GB (10^9 bytes), with one ordinary call per body."""

    sha256: float
    encrypt: float
    decrypt: float

    @property
    def put(self) -> float:
        """The least cost of PutChunk."""
        return self.sha256 + self.encrypt

    @property
    def get(self) -> float:
        """The least cost of GetChunk."""
        return self.decrypt


def measure(body_bytes: int, seconds: float) -> Floor:
    """Measure the floor. Takes about three times `seconds`."""
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
        for _ in range(max(1, 1_000_000 // body_bytes)):  # so that reading the clock costs nothing
            work()
            calls += 1
    return (time.process_time() - start) / (calls * body_bytes) * 1e9

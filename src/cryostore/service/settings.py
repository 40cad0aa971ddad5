"""Settings of the service that an operator may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryostore.chunks.packs.writer import PACK_BYTES_TARGET
from cryostore.core.limits import MIB
from cryostore.core.time import DAY_MS, HOUR_MS, MINUTE_MS


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. Times are in milliseconds unless the name says otherwise."""

    account_id: str = "000000000000"
    region: str = "local-1"
    summary_checksum: Literal["verify", "store"] = "verify"
    """Whether an object's SUMMARY is verified, or stored as given, for clients that compute it otherwise (B.4)."""
    start_window_minutes: int = 480
    start_window_minutes_min: int = 60
    complete_window_minutes: int = 10_080
    idle_job_ms: int = 60 * MINUTE_MS
    idle_restore_job_ms: int = 24 * HOUR_MS
    idempotency_ms: int = 24 * HOUR_MS
    listed_jobs_ms: int = 30 * DAY_MS
    pack_bytes_target: int = PACK_BYTES_TARGET
    reserve_bytes: int = 0
    """Bytes of disk that are reserved for deletes and garbage collection; 0: none, and no write is refused for it.
    A server reserves some by default."""
    quarantine_ms: int = 24 * HOUR_MS
    """How long garbage stays in quarantine, first in its pack, then as a whole pack, before it is removed."""
    collection_period_ms: int = 6 * HOUR_MS
    """Interval between two garbage collections of a server."""
    collection_memory_bytes: int = 128 * MIB
    """Memory that the mark phase may use. A store with more chunks than bytes here is marked in several passes."""
    claim_lease_ms: int = 2 * MINUTE_MS
    """How long a claim lives without renewal before another process may take over the background work."""
    scrub_period_ms: int = 30 * DAY_MS
    """Time in which a server verifies every pack once; 0: it verifies none."""

"""What an operator may decide about the service's behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryostore.chunks.packs.writer import PACK_BYTES_TARGET
from cryostore.core.limits import MIB
from cryostore.core.time import DAY_MS, HOUR_MS, MINUTE_MS


@dataclass(frozen=True, slots=True)
class Settings:
    """The decisions in force. Times in milliseconds unless the name says otherwise."""

    account_id: str = "000000000000"
    region: str = "local-1"
    summary_checksum: Literal["verify", "store"] = "verify"
    """Whether an object's SUMMARY is checked or, for clients that compute another, kept as given (B.4)."""
    start_window_minutes: int = 480
    start_window_minutes_min: int = 60
    complete_window_minutes: int = 10_080
    idle_job_ms: int = 60 * MINUTE_MS
    idle_restore_job_ms: int = 24 * HOUR_MS
    idempotency_ms: int = 24 * HOUR_MS
    listed_jobs_ms: int = 30 * DAY_MS
    pack_bytes_target: int = PACK_BYTES_TARGET
    reserve_bytes: int = 0
    """How much of the disk is kept back for deletes and garbage collection; 0: nothing, and no write is refused for it.
    A server keeps some back unless told otherwise."""
    quarantine_ms: int = 24 * HOUR_MS
    """How long garbage waits, first in its pack, then as a pack, before it is removed."""
    collection_period_ms: int = 6 * HOUR_MS
    """How often a server collects garbage."""
    collection_memory_bytes: int = 128 * MIB
    """How much memory marking may take. A store of more chunks than bytes is marked in several passes."""
    claim_lease_ms: int = 2 * MINUTE_MS
    """How long a process may show no sign of life before another one may take over its background work."""
    scrub_period_ms: int = 30 * DAY_MS
    """How long it takes a server to verify every pack once; 0: it verifies none by itself."""

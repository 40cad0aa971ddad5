"""Counters of one process for its metrics; nothing that must be exact depends on them."""

from __future__ import annotations

import threading

from cryostore.core.traffic import Traffic


class Tally:
    """Totals since the start of the process. Thread safe.

    `traffic` has the traffic to a shared store, by "catalog" and "blobs"; it is empty for a data directory.
    """

    def __init__(self) -> None:
        self.traffic: dict[str, Traffic] = {}
        self.chunks_stored = 0
        self.bytes_stored = 0
        self.chunks_shared = 0
        self.bytes_shared = 0
        self._lock = threading.Lock()

    def stored(self, length: int) -> None:
        """Count a payload of this length that was new to its vault and was stored."""
        with self._lock:
            self.chunks_stored += 1
            self.bytes_stored += length

    def shared(self, length: int) -> None:
        """Count a payload of this length that its vault held already."""
        with self._lock:
            self.chunks_shared += 1
            self.bytes_shared += length

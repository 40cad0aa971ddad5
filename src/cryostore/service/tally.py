"""What one process counts while it carries out operations: for metrics, and for nothing that must be exact."""

from __future__ import annotations

import threading

from cryostore.core.traffic import Traffic


class Tally:
    """Totals since the process began. Thread safe.

    `traffic` is that to the parts of a shared store, by "catalog" and "blobs"; empty for a directory.
    """

    def __init__(self) -> None:
        self.traffic: dict[str, Traffic] = {}
        self.chunks_stored = 0
        self.bytes_stored = 0
        self.chunks_shared = 0
        self.bytes_shared = 0
        self._lock = threading.Lock()

    def stored(self, length: int) -> None:
        """A payload of this length was new to its vault, and is stored."""
        with self._lock:
            self.chunks_stored += 1
            self.bytes_stored += length

    def shared(self, length: int) -> None:
        """A payload of this length was in its vault already."""
        with self._lock:
            self.chunks_shared += 1
            self.bytes_shared += length

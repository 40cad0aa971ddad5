"""The arguments of every handler: the parts of the service, and the caller.

`Tally`, one of the parts, counts for the metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryostore.catalog.database import Database
from cryostore.chunks.disk_reserve import NO_RESERVE, DiskReserve
from cryostore.chunks.records import Records
from cryostore.chunks.store import ChunkStore
from cryostore.core.ids import NewId
from cryostore.core.limits import Limits
from cryostore.core.time import Clock
from cryostore.core.traffic import Traffic
from cryostore.model.operation import Output
from cryostore.service.arns import Arns
from cryostore.service.settings import Settings
from cryostore.service.tokens import Tokens
from cryostore.service.vault_keys import VaultKeys


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request, proved by the signature. A `root` caller may do everything.

    With `takes_zstd`, the bytes of chunks may be returned as CompressedPayload.
    """

    access_key_id: str
    root: bool = False
    takes_zstd: bool = False


class Tally:
    """Totals since the start of the process. Thread safe; nothing that must be exact depends on them.

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


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service that handlers share. Holds no state of any request.

    `clock` is the time of the database, so that all processes on one store agree when leases, windows and quarantines
    end. With SQLite it is the machine's.
    """

    database: Database
    store: ChunkStore
    records: Records
    keys: VaultKeys
    tokens: Tokens
    arns: Arns
    clock: Clock
    new_id: NewId
    limits: Limits
    settings: Settings
    reserve: DiskReserve = NO_RESERVE
    tally: Tally = field(default_factory=Tally)


Handler = Callable[[Context, Any, Caller], Output]

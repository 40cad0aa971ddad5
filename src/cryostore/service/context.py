"""What a handler works with, and who it works for."""

from __future__ import annotations

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
from cryostore.model.operation import Output
from cryostore.service.arns import Arns
from cryostore.service.settings import Settings
from cryostore.service.tally import Tally
from cryostore.service.tokens import Tokens
from cryostore.service.vault_keys import VaultKeys


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as the signature proved. `root` may do everything.

    `takes_zstd`: bytes of chunks may be answered as CompressedPayload.
    """

    access_key_id: str
    root: bool = False
    takes_zstd: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service that handlers share. Holds no state of any request.

    `clock` tells the time of the database, by which leases, windows and quarantines end: one clock for all who share
    it. With SQLite that is the machine's.
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

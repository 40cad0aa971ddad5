"""What the catalog's jobs, points and lineages should be, kept in dicts, and the means to drive the real ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryostore.catalog import chunk_lists, lineages, objects
from cryostore.catalog.chunk_lists import ChunkEntry
from cryostore.catalog.objects import ObjectContent
from cryostore.core.digest import sha256
from cryostore.core.ids import counting_ids
from cryostore.core.limits import Limits
from cryostore.core.time import FrozenClock
from cryostore.service import Caller, Context, Settings
from cryostore.service.arns import Arns
from cryostore.service.tokens import Tokens
from support.memory_database import MemoryDatabase

ROOT = Caller("AKIAROOT", root=True)
ROLE = "arn:aws:iam::000000000000:role/backup-agent"
VAULT = "Default"


def catalog_context(database=None, clock=None):
    """A context for handlers that touch the catalog alone: it has no chunk store and no keys."""
    return Context(
        database=database or MemoryDatabase(),
        store=None,
        keys=None,
        tokens=Tokens(b"secret"),
        arns=Arns(Settings()),
        clock=clock or FrozenClock(),
        new_id=counting_ids(),
        limits=Limits(),
        settings=Settings(),
    )


@dataclass(frozen=True)
class Thing:
    """An object of the model."""

    summary: bytes
    length: int
    created_ms: int
    parts: int


@dataclass
class Job:
    """A backup job of the model. `base` is a Point once it is chosen, or from the start if it was named."""

    job_id: str
    resource: str
    selection: str
    start_by_ms: int
    base: Point | None = None
    state: str = "CREATED"
    view: dict = field(default_factory=dict)

    @property
    def ended(self):
        return self.state not in {"CREATED", "PENDING", "RUNNING", "ABORTING"}


@dataclass(eq=False)
class Point:
    """A recovery point of the model, or one that is being deleted."""

    point_id: str
    resource: str
    view: dict
    deleting: bool = False
    restores: list = field(default_factory=list)


def checksum(view):
    """CommitBackupJob's ObjectsChecksum over a view of the model."""
    return hashlib.sha256(b"".join(name + b"\0" + view[name].summary for name in sorted(view))).hexdigest()


def content(transaction, thing, list_id):
    """The catalog's form of an object; one of several parts has its chunk list in rows of its own."""
    if thing.parts:
        entries = [(part, part * 10, chunk_lists.pack([ChunkEntry(part * 10, 1, bytes(32), 0)])) for part in
                   range(thing.parts)]  # fmt: skip
        chunk_lists.insert_parts(transaction, list_id, entries)
    return ObjectContent(
        created_ms=thing.created_ms,
        length=thing.length,
        chunk_count=thing.parts,
        summary=thing.summary,
        summary_form=0,
        chunk_list_id=list_id if thing.parts else None,
    )


def scanned(transaction, segment, **arguments):
    """A view of the catalog, read page by page, as (name, summary, length) of each object."""
    view = lineages.view(transaction, segment)
    arguments = {"start": b"", "prefix": b"", "limit": 3} | arguments
    found = []
    while True:
        page = objects.page(transaction, view, **arguments)
        assert len(page) <= arguments["limit"]
        found += [(row.name, row.summary, row.length) for row in page]
        if len(page) < arguments["limit"]:
            return found
        arguments["start"] = page[-1].name + b"\0"


def expected(view, *, start=b"", prefix=b"", created_from_ms=None, created_to_ms=None):
    """As `scanned`, of a view of the model."""
    return [
        (name, thing.summary, thing.length)
        for name, thing in sorted(view.items())
        if name >= start and name.startswith(prefix)
        and (created_from_ms is None or thing.created_ms >= created_from_ms)
        and (created_to_ms is None or thing.created_ms < created_to_ms)
    ]  # fmt: skip


def thing_of(number, length, created_ms, parts):
    """An object unlike any other."""
    return Thing(sha256(str(number).encode()), length, created_ms, parts)

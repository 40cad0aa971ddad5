"""Kinds of findings: the problems a store can have, what each means, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

EXAMPLES_MAX = 20


class FindingKind(NamedTuple):
    """A kind of finding. A `harmless` one loses no data and needs no action."""

    name: str
    meaning: str
    advice: str
    harmless: bool = False


BACK_UP_AGAIN = "back the affected resources up again: the upload repairs every chunk that it contains"

CATALOG_DAMAGED = FindingKind(
    "catalog-damaged",
    "the database is damaged, or rows of it contradict each other",
    "stop the server, keep a copy of catalog.sqlite, check the disk, then run `cryo rebuild-catalog`",
)
PACK_MISSING = FindingKind(
    "pack-missing",
    "a pack that the catalog knows is missing",
    "if a disk or folder is away, bring it back; if not, run `cryo repair`, then " + BACK_UP_AGAIN,
)
PACK_HEADER = FindingKind(
    "pack-header",
    "the header of a pack is damaged, belongs to another pack, or was written by a later version",
    "no restore needs the header; run `cryo scrub` to find out what else the disk has lost",
)
PACK_SIZE = FindingKind(
    "pack-size",
    "the size of a pack has changed since it was written: it was truncated or replaced",
    "affected chunks are listed below; `cryo repair` searches for other copies and records the present size",
)
PACK_UNKNOWN = FindingKind(
    "pack-unknown",
    "the catalog does not know a pack, and no process writes to it; a crash can leave such a pack",
    "run `cryo repair`: it adopts the sound chunks, and garbage collection removes those that nothing needs",
)
TORN_TAIL = FindingKind(
    "torn-tail",
    "a pack ends with an unfinished write; nothing refers to these bytes",
    "run `cryo repair` to cut them off",
)
CHUNK_MISPLACED = FindingKind(
    "chunk-misplaced",
    "the catalog points to a place in a pack that holds another chunk",
    "run `cryo repair`, which searches for another copy; if there is none, " + BACK_UP_AGAIN,
)
CHUNK_DAMAGED = FindingKind(
    "chunk-damaged",
    "the bytes of a chunk are damaged",
    "run `cryo repair`, which searches for another copy; if there is none, " + BACK_UP_AGAIN,
)
CHUNK_MISSING = FindingKind(
    "chunk-missing",
    "an object or upload needs a chunk that the catalog does not have",
    "run `cryo repair`, which searches the packs for the chunk; if there is none, " + BACK_UP_AGAIN,
)
LIST_DAMAGED = FindingKind(
    "list-damaged",
    "the chunk list of an object is damaged or contradicts the object",
    "stop the server, keep a copy of catalog.sqlite, then run `cryo rebuild-catalog`",
)
RECORD_DAMAGED = FindingKind(
    "record-damaged",
    "a record for rebuilding the catalog is missing or damaged; the catalog itself is correct",
    "run `cryo repair`, which writes the record again",
)
COMMIT_UNKNOWN = FindingKind(
    "commit-unknown",
    "the catalog was restored from an older copy and lacks commits; until it is rebuilt, nothing is deleted",
    "run `cryo rebuild-catalog`, which brings them back (with --replace in a directory, with an empty database for a"
    " shared store)",
)
RECORD_UNKNOWN = FindingKind(
    "record-unknown",
    "there is a record that the catalog does not know",
    "if catalog.sqlite was restored from an older copy, `cryo rebuild-catalog --replace` brings back the later data;"
    " otherwise a process that died left the record, and it does no harm",
)
SUMMARY_DIFFERS = FindingKind(
    "summary-differs",
    "the checksum of an object is not the SUMMARY of its chunks: normal for clients that compute another",
    "nothing, if clients may send checksums of their own; each chunk has its own checksum in any case",
    harmless=True,
)
NO_KEY = FindingKind(
    "no-key",
    "the keyring lacks a key, so its chunks could not be checked",
    "run the command again with the right keyring; without it, these backups cannot be read",
)
UNREADABLE = FindingKind(
    "unreadable",
    "the storage could not read bytes that should exist",
    "check the kernel log and the disk; copy the data to another disk while it can be read, then check again",
)
KINDS = (
    CATALOG_DAMAGED,
    COMMIT_UNKNOWN,
    PACK_MISSING,
    PACK_HEADER,
    PACK_SIZE,
    PACK_UNKNOWN,
    TORN_TAIL,
    CHUNK_MISPLACED,
    CHUNK_DAMAGED,
    CHUNK_MISSING,
    LIST_DAMAGED,
    RECORD_DAMAGED,
    RECORD_UNKNOWN,
    NO_KEY,
    UNREADABLE,
    SUMMARY_DIFFERS,
)


@dataclass
class Finding:
    """How often a kind was found, and the first examples."""

    kind: FindingKind
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """The findings so far, by kind."""

    def __init__(self) -> None:
        self._found: dict[FindingKind, Finding] = {}

    def add(self, kind: FindingKind, example: str, *, count: int = 1) -> None:
        """Add a finding, `count` times."""
        found = self._found.setdefault(kind, Finding(kind))
        found.count += count
        if len(found.examples) < EXAMPLES_MAX:
            found.examples.append(example)

    def take(self, others: Findings, *kinds: FindingKind) -> None:
        """Take over the findings of these kinds from elsewhere."""
        for kind in kinds:
            if kind in others._found:
                self._found[kind] = others._found[kind]

    def all(self) -> list[Finding]:
        """Return the findings, the worst kind first."""
        return [self._found[kind] for kind in KINDS if kind in self._found]

    def count(self, kind: FindingKind) -> int:
        """Return how often this kind was found."""
        return self._found[kind].count if kind in self._found else 0

"""Findings: what can be wrong with a store, what each kind means, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

EXAMPLES_MAX = 20


class FindingKind(NamedTuple):
    """One kind of finding. A `harmless` one loses nothing by itself and is no issue."""

    name: str
    meaning: str
    advice: str
    harmless: bool = False


BACK_UP_AGAIN = "make another backup of what is hurt: its upload heals every chunk it brings"

CATALOG_DAMAGED = FindingKind(
    "catalog-damaged",
    "the database is damaged, or rows of it contradict each other",
    "stop the server, keep a copy of catalog.sqlite, look after the disk, then run `cryo rebuild-catalog`",
)
PACK_MISSING = FindingKind(
    "pack-missing",
    "the catalog knows a pack that is not there",
    "if a disk or folder is away, bring it back; if not, run `cryo repair`, then " + BACK_UP_AGAIN,
)
PACK_HEADER = FindingKind(
    "pack-header",
    "the first bytes of a pack are damaged, are of another pack, or were written by a later version",
    "no restore needs them; find out with `cryo scrub` what else the disk has lost",
)
PACK_SIZE = FindingKind(
    "pack-size",
    "a pack is not as large as it was when it was put: it was cut short, or replaced",
    "what chunks that hurts is said below; `cryo repair` looks for other copies and takes down the size it has now",
)
PACK_UNKNOWN = FindingKind(
    "pack-unknown",
    "there is a pack that the catalog does not know, and nobody writes to it; a crash can leave one",
    "run `cryo repair`: it takes up what is sound, and the next collections remove what nobody needs",
)
TORN_TAIL = FindingKind(
    "torn-tail",
    "a pack ends in bytes that a writer did not finish; nothing refers to them",
    "run `cryo repair` to cut them off",
)
CHUNK_MISPLACED = FindingKind(
    "chunk-misplaced",
    "the catalog points to a place in a pack where another chunk lies",
    "run `cryo repair`: it looks for another copy; if it finds none, " + BACK_UP_AGAIN,
)
CHUNK_DAMAGED = FindingKind(
    "chunk-damaged",
    "the bytes of a chunk are damaged",
    "run `cryo repair`: it looks for another copy; if it finds none, " + BACK_UP_AGAIN,
)
CHUNK_MISSING = FindingKind(
    "chunk-missing",
    "an object or upload needs a chunk that the catalog does not have",
    "run `cryo repair`: it looks for the chunk in the packs; if it finds none, " + BACK_UP_AGAIN,
)
LIST_DAMAGED = FindingKind(
    "list-damaged",
    "the chunk list of an object is damaged or contradicts the object",
    "stop the server, keep a copy of catalog.sqlite, then run `cryo rebuild-catalog`",
)
RECORD_DAMAGED = FindingKind(
    "record-damaged",
    "a record that the catalog would be rebuilt from is missing or damaged; the catalog itself is right",
    "run `cryo repair`: it writes the record anew",
)
COMMIT_UNKNOWN = FindingKind(
    "commit-unknown",
    "the catalog was put back from an older copy and lacks commits; nothing is deleted or collected meanwhile",
    "run `cryo rebuild-catalog` (--replace in a directory, an empty database for a shared store): it brings them back",
)
RECORD_UNKNOWN = FindingKind(
    "record-unknown",
    "there is a record of something that the catalog does not know",
    "if catalog.sqlite was put back from an older copy, `cryo rebuild-catalog --replace` brings back what came after"
    " it; otherwise a dying process left it, and it does no harm",
)
SUMMARY_DIFFERS = FindingKind(
    "summary-differs",
    "the checksum of an object is not the SUMMARY of its chunks: normal for clients that compute another",
    "nothing, if the store takes foreign checksums; each chunk has a checksum of its own all the same",
    harmless=True,
)
NO_KEY = FindingKind(
    "no-key",
    "the keyring lacks a key, so chunks could not be compared with their envelopes",
    "start again with the right keyring; without it these backups cannot be read",
)
UNREADABLE = FindingKind(
    "unreadable",
    "the disk did not give bytes that should be there",
    "look at the kernel's log and after the disk; copy the data away while it lasts, then check again",
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
    """How often something was found, and where, the first times."""

    kind: FindingKind
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """What was found so far, by kind."""

    def __init__(self) -> None:
        self._found: dict[FindingKind, Finding] = {}

    def add(self, kind: FindingKind, example: str, *, count: int = 1) -> None:
        """Something was found, so many times."""
        found = self._found.setdefault(kind, Finding(kind))
        found.count += count
        if len(found.examples) < EXAMPLES_MAX:
            found.examples.append(example)

    def take(self, others: Findings, *kinds: FindingKind) -> None:
        """Add what was found elsewhere of these kinds."""
        for kind in kinds:
            if kind in others._found:
                self._found[kind] = others._found[kind]

    def all(self) -> list[Finding]:
        """What was found, the worst first."""
        return [self._found[kind] for kind in KINDS if kind in self._found]

    def count(self, kind: FindingKind) -> int:
        """How often this was found."""
        return self._found[kind].count if kind in self._found else 0

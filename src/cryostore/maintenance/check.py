"""Checking: the catalog against the packs, both ways, and against itself. Changes nothing.

Lives here: the order of the work. What can be found: `finding`; the packs: `pack_check`; what refers to chunks:
`reference_check`. Everything else may go on meanwhile: what looks wrong is looked at again in a new snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog import damage, integrity, packs
from cryostore.catalog.damage import Place
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError
from cryostore.maintenance import finding
from cryostore.maintenance.collection import Progress
from cryostore.maintenance.damage import Damage, Naming
from cryostore.maintenance.finding import Finding, Findings
from cryostore.maintenance.pack_check import PackCheck, PacksSeen
from cryostore.maintenance.record_check import RecordCheck
from cryostore.maintenance.reference_check import ReferenceCheck
from cryostore.service import Context

BAD_CHUNKS_MAX = 200_000
"""So many chunks that are found bad are named with what they hurt; a scrub marks and names any number."""
UNKNOWN_PACKS_MAX = 100_000


@dataclass
class Checked:
    """What was seen and found. Garbage is normal: it waits to be collected.

    `named` is false if so much is bad that `damage` does not have all it hurts.
    """

    packs: PacksSeen = field(default_factory=PacksSeen)
    objects: int = 0
    findings: list[Finding] = field(default_factory=list)
    damage: Damage = field(default_factory=Damage)
    named: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to see to."""
        return all(found.kind.harmless for found in self.findings)


def check(context: Context, outcome: Checked, *, data: bool = False) -> Iterator[Progress]:
    """Look at all of the store, step by step; with `data` at every byte. Fills `outcome` by the end.

    Raises StorageUnavailableError if the catalog cannot be read now.
    """
    findings, naming, bad = Findings(), Naming(context), set[tuple[int, bytes]]()

    def on_bad(place: Place) -> None:
        if len(bad) < BAD_CHUNKS_MAX:
            bad.add((place.vault_id, place.digest))
        else:
            outcome.named = False

    try:
        yield from _check_catalog(context, findings)
        pack_check = PackCheck(context, findings, on_bad, data=data)
        outcome.packs = pack_check.seen
        yield from pack_check.run()
        pack_check.say_missing_keys()
        yield from _check_unknown(context, findings)
        yield from RecordCheck(context).check(findings)
        references = ReferenceCheck(context, findings, naming, bad=bad)
        yield from references.run()
        outcome.objects = references.objects
        if marked := context.database.read(damage.count):
            findings.add(finding.CHUNK_DAMAGED, "marked by a scrub or a read", count=marked)
    except DamagedDataError as error:  # the catalog itself cannot be read any further
        findings.add(finding.CATALOG_DAMAGED, error.message)
    outcome.findings = findings.all()
    outcome.damage = naming.result()


def _check_catalog(context: Context, findings: Findings) -> Iterator[Progress]:
    yield Progress("catalog", 0)
    for problem in context.database.read(integrity.problems):
        findings.add(finding.CATALOG_DAMAGED, problem)


def unknown_packs(context: Context) -> Iterator[Progress | str]:
    """The names of packs without a row that nobody writes to and that hold something; progress in between."""
    for done, name in enumerate(context.store.pack_ids()):
        yield Progress("files", done)
        if _is_unknown(context, name):
            yield name


def _is_unknown(context: Context, name: str) -> bool:
    try:
        # A writer's pack has no row until its first chunk is recorded; an empty one is being made at this moment.
        if context.store.is_owned(name) or not context.store.pack_bytes(name):
            return False
    except BlobNotFoundError:
        return False
    return context.database.read(partial(packs.find, name=name)) is None


def _check_unknown(context: Context, findings: Findings) -> Iterator[Progress]:
    names: list[str] = []
    try:
        for step in unknown_packs(context):
            if isinstance(step, Progress):
                yield step
            elif len(names) < UNKNOWN_PACKS_MAX:
                names.append(step)
        for name in names:
            if _is_unknown(context, name):  # its writer may just have recorded it, and a collection removed it
                findings.add(finding.PACK_UNKNOWN, f"pack {name}, {context.store.pack_bytes(name) or 0} bytes")
    except StorageUnavailableError as error:
        findings.add(finding.UNREADABLE, error.message)

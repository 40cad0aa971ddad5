"""`cryo check`: compares the catalog with the packs, both ways, and with itself.

Marks chunks that are found damaged, so that the next upload repairs them, and removes the marks of chunks that prove
sound. It changes nothing else. The store may stay in use: a suspicion is checked again in a new transaction.

This module has the order of the work. The kinds of findings are in `finding_kinds`, the check of packs in `pack_check`,
and the check of references to chunks in `catalog_check`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog.queries import damage
from cryostore.catalog.rows import packs
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.affected import Affected, AffectedSearch
from cryostore.maintenance.verification.catalog_check import RecordCheck, ReferenceCheck
from cryostore.maintenance.verification.damage_marks import DamageMarks
from cryostore.maintenance.verification.finding_kinds import Finding, Findings
from cryostore.maintenance.verification.pack_check import PackCheck, PacksSeen
from cryostore.service import Context

UNKNOWN_PACKS_MAX = 100_000

PROBLEMS_MAX = 100
"""How many problems of the database itself one check reports."""


@dataclass
class CheckResult:
    """Counts and findings. Garbage is normal: it waits to be collected.

    `marked` chunks were found damaged and are newly marked. `not_marked` says why others could not be marked.
    """

    packs: PacksSeen = field(default_factory=PacksSeen)
    objects: int = 0
    findings: list[Finding] = field(default_factory=list)
    damage: Affected = field(default_factory=Affected)
    marked: int = 0
    not_marked: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing that needs action."""
        return all(found.kind.harmless for found in self.findings)


def check(context: Context, outcome: CheckResult, *, data: bool = False) -> Iterator[Progress]:
    """Check the whole store, step by step; with `data`, read and open every chunk. Fills `outcome` by the end.

    Raises StorageUnavailableError if the catalog cannot be read now.
    """
    findings, naming = Findings(), AffectedSearch(context)
    try:
        yield from _check_catalog(context, findings)
        bad = yield from _check_packs(context, findings, outcome, data=data)
        known = context.database.read(damage.count) - outcome.marked
        if known > 0:
            findings.add(finding_kinds.CHUNK_DAMAGED, "marked before by a scrub, a check or a read", count=known)
        yield from _check_unknown(context, findings)
        yield from RecordCheck(context).check(findings)
        references = ReferenceCheck(context, findings, naming, bad=bad)
        yield from references.run()
        outcome.objects = references.objects
    except DamagedDataError as error:  # the catalog itself cannot be read further
        findings.add(finding_kinds.CATALOG_DAMAGED, error.message)
    outcome.findings = findings.all()
    outcome.damage = naming.result()


def _check_packs(
    context: Context, findings: Findings, outcome: CheckResult, *, data: bool
) -> Generator[Progress, None, set[tuple[int, bytes]]]:
    """Check the packs and mark damaged chunks. Returns the chunks that could not be marked, up to a limit."""
    marks = DamageMarks(context)
    pack_check = PackCheck(context, findings, marks.add, marks.add_sound, data=data)
    outcome.packs = pack_check.seen
    for step in pack_check.run():
        marks.flush_if_due()
        yield step
    marks.flush()
    pack_check.report_missing_keys()
    outcome.marked, outcome.not_marked = marks.marked, marks.problem
    return marks.left


def _check_catalog(context: Context, findings: Findings) -> Iterator[Progress]:
    yield Progress("catalog", 0)
    for problem in context.database.read(lambda transaction: transaction.problems(PROBLEMS_MAX)):
        findings.add(finding_kinds.CATALOG_DAMAGED, problem)


def unknown_packs(context: Context) -> Iterator[Progress | str]:
    """Yield the names of non-empty packs without a row that no process writes to, with progress in between."""
    for done, name in enumerate(context.store.pack_ids()):
        yield Progress("files", done)
        if _is_unknown(context, name):
            yield name


def _is_unknown(context: Context, name: str) -> bool:
    try:
        # The pack of a writer has no row until its first chunk is recorded; an empty pack is just being created.
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
            if _is_unknown(
                context, name
            ):  # meanwhile its writer may have recorded it, or a garbage collection removed it
                findings.add(finding_kinds.PACK_UNKNOWN, f"pack {name}, {context.store.pack_bytes(name) or 0} bytes")
    except StorageUnavailableError as error:
        findings.add(finding_kinds.UNREADABLE, error.message)

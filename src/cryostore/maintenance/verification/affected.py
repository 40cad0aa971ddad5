"""Search for the recovery points, jobs and objects affected by damaged chunks.

The generations alone decide which recovery points and jobs see an object version (`catalog.rows.lineages`): those of
its lineage between its two generations, those of lineages begun on such a generation, as long as these have no row of
their own for the name, and so on for their children.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import GENERATION_MAX, Transaction
from cryostore.catalog.queries import damage, references
from cryostore.catalog.queries.references import ObjectReferences, chunk_list_parts
from cryostore.catalog.rows import chunk_lists
from cryostore.core.digest import DIGEST_BYTES
from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.garbage_collection.mark import OBJECTS_PER_PAGE, ROWS_PER_PAGE, START, DigestSet
from cryostore.service import Context

NAMES_PER_ONE_MAX = 20
"""The number of affected objects that are named per recovery point or job; the others are only counted."""
NAMES_MAX = 10_000
"""The number of names in all, so that a lost disk does not fill the memory."""


@dataclass
class PointDamage:
    """A recovery point that cannot be restored in full, its number of affected `objects`, and some of their names."""

    recovery_point_arn: str
    vault: str
    resource_arn: str
    resource_name: str | None
    created_ms: int
    objects: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class JobDamage:
    """An open backup job that would commit such a recovery point."""

    backup_job_id: str
    vault: str
    resource_arn: str
    objects: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class Affected:
    """Affected recovery points and jobs. `objects` counts each affected object version and upload once.

    An object that no recovery point or job sees any more is not counted.
    """

    objects: int = 0
    points: list[PointDamage] = field(default_factory=list)
    jobs: list[JobDamage] = field(default_factory=list)


class _Seeing(NamedTuple):
    """The recovery points and jobs that see an object, and its name."""

    name: bytes
    points: list[damage.AffectedPoint]
    jobs: list[damage.AffectedJob]


class AffectedSearch:
    """Collects affected recovery points and jobs, object by object.

    Each object is looked up in a transaction of its own, because it may be gone by now.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._points: dict[str, PointDamage] = {}
        self._jobs: dict[str, JobDamage] = {}
        self._objects = 0
        self._names = 0

    def add_object(self, object_id: int) -> bool:
        """Add an affected object version. Returns whether a recovery point or job sees it."""
        return self._count(self._context.database.read(partial(_seen_by, object_id=object_id)))

    def add_upload(self, upload_number: int) -> bool:
        """Add an affected upload. Returns whether its job is still open."""
        return self._count(self._context.database.read(partial(_uploaded_by, upload_number=upload_number)))

    def result(self) -> Affected:
        """Return what was collected, the newest recovery points first."""
        points = sorted(self._points.values(), key=lambda point: (-point.created_ms, point.recovery_point_arn))
        return Affected(self._objects, points, sorted(self._jobs.values(), key=lambda job: job.backup_job_id))

    def _count(self, seeing: _Seeing | None) -> bool:
        if seeing is None or not (seeing.points or seeing.jobs):
            return False
        self._objects += 1
        for point in seeing.points:
            arn = self._context.arns.point(point.point_id)
            new = PointDamage(arn, point.vault, point.resource_arn, point.resource_name, point.created_ms)
            self._name(self._points.setdefault(point.point_id, new), seeing.name)
        for job in seeing.jobs:
            self._name(self._jobs.setdefault(job.job_id, JobDamage(*job)), seeing.name)
        return True

    def _name(self, one: PointDamage | JobDamage, name: bytes) -> None:
        one.objects += 1
        if len(one.names) < NAMES_PER_ONE_MAX and self._names < NAMES_MAX:
            one.names.append(name.decode(errors="backslashreplace"))
            self._names += 1


def _seen_by(transaction: Transaction, object_id: int) -> _Seeing | None:
    version = damage.object_version(transaction, object_id)
    if version is None or version.removed:
        return None
    seeing = _Seeing(version.name, [], [])
    generations = version.from_generation, version.to_generation
    for lineage_id, begin, end in _seen(transaction, version.name, version.lineage_id, *generations):
        seeing.points.extend(damage.affected_points(transaction, lineage_id, begin, end))
        seeing.jobs.extend(damage.affected_jobs(transaction, lineage_id, begin, end))
    return seeing


def _uploaded_by(transaction: Transaction, upload_number: int) -> _Seeing | None:
    found = damage.affected_upload(transaction, upload_number)
    return None if found is None else _Seeing(found[1], [], [found[0]])


def _seen(
    transaction: Transaction, name: bytes, lineage_id: int, begin: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (lineage, first, end) ranges in which a version is seen that its lineage sees from `begin` up to `end`."""
    waiting = [(lineage_id, begin, end)]
    while waiting:
        here = waiting.pop()
        yield here
        for child, _ in damage.child_lineages(transaction, *here):
            waiting += [(child, *gap) for gap in _gaps(damage.version_ranges(transaction, child, name))]


def _gaps(versions: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of generations that the given ranges, in order, leave uncovered."""
    begin = 0
    for from_generation, to_generation in versions:
        if from_generation > begin:
            yield begin, from_generation
        begin = max(begin, to_generation)
    if begin < GENERATION_MAX:
        yield begin, GENERATION_MAX


def find_affected(context: Context) -> Generator[Progress, None, Affected]:
    """Find all that the chunks marked as damaged affect, in one pass over all references to chunks.

    Holds a set of the damaged chunks of at most 128 MiB, and the names. Raises DamagedDataError if a chunk list in the
    catalog cannot be read.
    """
    naming = AffectedSearch(context)
    marked = yield from _damaged_set(context)
    if marked is not None:
        yield from _name_uploads(context, naming, marked)
        yield from _name_objects(context, naming, marked)
    return naming.result()


def _damaged_set(context: Context) -> Generator[Progress, None, DigestSet | None]:
    """Return the set of damaged chunks, with a few false positives; None if there are none."""
    count = context.database.read(damage.count)
    if not count:
        return None
    marked, after = DigestSet(count, 0), START
    while rows := context.database.read(partial(damage.page, after=after, limit=ROWS_PER_PAGE)):
        for vault_id, digest in rows:
            marked.add(vault_id, digest)
        after = rows[-1]
        yield Progress("damaged", 0, count)
    return marked


def _name_uploads(context: Context, naming: AffectedSearch, marked: DigestSet) -> Generator[Progress, None, None]:
    after, named, done = (0, -1), 0, 0
    while rows := context.database.read(partial(references.upload_chunks, after=after, limit=ROWS_PER_PAGE)):
        for row in rows:
            if row.vault_id is None or row.upload_number == named or not marked.holds(row.vault_id, row.digest):
                continue
            if _any_damaged(context, row.vault_id, [row.digest]):
                naming.add_upload(row.upload_number)
                named = row.upload_number
        after, done = rows[-1][:2], done + len(rows)
        yield Progress("name", done)


def _name_objects(context: Context, naming: AffectedSearch, marked: DigestSet) -> Generator[Progress, None, None]:
    after, done = 0, 0
    while rows := context.database.read(partial(references.objects, after=after, limit=OBJECTS_PER_PAGE)):
        for row in rows:
            if row.vault_id is not None and _is_affected(context, row.vault_id, row, marked):
                naming.add_object(row.object_id)
        after, done = rows[-1].object_id, done + len(rows)
        yield Progress("name", done)


def _is_affected(context: Context, vault_id: int, row: ObjectReferences, marked: DigestSet) -> bool:
    """Whether any chunk of an object is marked as damaged."""
    for packed in object_digests(context, row):
        digests = (packed[place : place + DIGEST_BYTES] for place in range(0, len(packed), DIGEST_BYTES))
        some = [digest for digest in digests if marked.holds(vault_id, digest)]
        if some and _any_damaged(context, vault_id, some):
            return True
    return False


def _any_damaged(context: Context, vault_id: int, digests: list[bytes]) -> bool:
    states = context.database.read(partial(damage.states, vault_id=vault_id, digests=digests))
    return any(state.damaged for state in states.values())


def object_digests(context: Context, row: ObjectReferences) -> Iterator[bytes]:
    """Yield the concatenated digests that an object refers to, part by part. Raises DamagedDataError."""
    if row.metadata_digest is not None:
        yield row.metadata_digest
    for packed in chunk_list_parts(context.database, row.chunks, row.chunk_list_id):
        try:
            yield chunk_lists.digests(packed)
        except DamagedDataError as error:
            raise DamagedDataError(
                f"object {row.object_id}: {error.message}", hint="run `cryo check` for details"
            ) from error

"""What a damaged chunk affects: versions, recovery points, jobs, child lineages and uploads."""

from __future__ import annotations

from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import AffectedJob, AffectedPoint, ChildLineage, ObjectVersion
from cryostore.catalog.rows import jobs, lineages, objects, recovery_points, uploads
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent
from support.catalogs.catalog_rows import job_row, point_row

COVERS = ("catalog/queries/damage.py",)

CONTENT = ObjectContent(0, 5, 1, b"s" * 32, 1)


def lineage(catalog, parent=None):
    return catalog.write(lambda t: lineages.insert(t, 1, parent))


def test_a_version_has_the_generations_that_see_it(catalog):
    here = lineage(catalog)
    first = catalog.write(lambda t: objects.put(t, Segment(here, 2), b"n", CONTENT))
    catalog.write(lambda t: objects.put(t, Segment(here, 5), b"n", CONTENT))
    assert catalog.read(lambda t: damage.object_version(t, first)) == ObjectVersion(here, b"n", 2, 5, 0)
    assert catalog.read(lambda t: damage.object_version(t, 99)) is None
    ranges = catalog.read(lambda t: damage.version_ranges(t, here, b"n"))
    assert [begin for begin, _ in ranges] == [2, 5]
    assert ranges[0] == (2, 5)


def test_points_of_a_range_of_generations(catalog):
    here = lineage(catalog)
    for generation, status in ((1, "COMPLETED"), (2, "PARTIAL"), (3, "DELETING"), (4, "COMPLETED")):
        row = point_row(f"P{generation}", status=status, lineage_id=here, generation=generation, created_ms=7)
        catalog.write(lambda t, row=row: recovery_points.insert(t, row))
    points = catalog.read(lambda t: damage.affected_points(t, here, 1, 4))
    assert sorted(points) == [AffectedPoint(f"P{number}", "v", "arn:r", None, 7) for number in (1, 2)]


def test_only_open_jobs_are_affected(catalog):
    here = lineage(catalog)
    for job_id, generation, completed_ms in (("J", 2, None), ("ended", 2, 9), ("later", 5, None)):
        row = job_row(job_id, lineage_id=here, generation=generation, completed_ms=completed_ms)
        catalog.write(lambda t, row=row: jobs.insert(t, row))
    assert catalog.read(lambda t: damage.affected_jobs(t, here, 1, 5)) == [AffectedJob("J", "v", "arn:r")]


def test_lineages_that_began_on_a_range(catalog):
    here = lineage(catalog)
    child, later = lineage(catalog, Segment(here, 2)), lineage(catalog, Segment(here, 5))
    assert catalog.read(lambda t: damage.child_lineages(t, here, 1, 5)) == [ChildLineage(child, 2)]
    assert catalog.read(lambda t: damage.child_lineages(t, here, 5, 6)) == [ChildLineage(later, 5)]


def test_an_upload_counts_while_its_job_is_open(catalog):
    def work(transaction):
        jobs.insert(transaction, job_row("J"))
        uploads.insert(transaction, upload_id="U", job_id="J", name=b"n", throw_on_duplicate=False, now_ms=0)
        return uploads.find(transaction, "J", "U").upload_number

    number = catalog.write(work)
    assert catalog.read(lambda t: damage.affected_upload(t, number)) == (AffectedJob("J", "v", "arn:r"), b"n")
    catalog.write(lambda t: jobs.end(t, "J", "FAILED", now_ms=5))
    assert catalog.read(lambda t: damage.affected_upload(t, number)) is None

"""Damage to packs, and the reports of a store about it."""

from __future__ import annotations

import random

from cryostore.catalog.rows import chunks
from cryostore.chunks.packs.format import pack_key
from cryostore.maintenance.verification.affected import find_affected
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from support.requests.api import sha
from support.stores import audit
from support.stores.collecting import Scene


def noise(number, size=200):
    """Return incompressible bytes, always the same for a number."""
    return random.Random(number).randbytes(size)


def to_end(steps):
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def scrubbed(context, **options):
    """Scrub everything and return the result."""
    outcome = ScrubResult()
    to_end(scrub(context, outcome, **options))
    return outcome


def hurt(context):
    """Return the names of damaged objects, by ARN of the affected point or id of the job."""
    damage = to_end(find_affected(context))
    points = {point.recovery_point_arn: sorted(point.names) for point in damage.points}
    return points | {job.backup_job_id: sorted(job.names) for job in damage.jobs}


def row_of(store, data, vault_id=1):
    """Return the row of a chunk by its bytes."""
    return store.database.read(lambda transaction: chunks.find(transaction, vault_id, sha(data)))


def damaged(store):
    """Return the digests that are marked as damaged."""
    query = "SELECT digest FROM chunk WHERE damaged_ms IS NOT NULL"
    return {row[0] for row in store.database.read(lambda transaction: transaction.rows(query))}


def blob(store, name):
    """Return the bytes of a pack of a store in memory, to be changed in place."""
    return store.blobs._blobs[pack_key(name)]


def spoil(store, data, place=-1, *, vault_id=1):
    """Flip a bit of a chunk's envelope, by default in its tag."""
    row = row_of(store, data, vault_id)
    at = row.pack_offset + (place if place >= 0 else row.sealed_length + place)
    blob(store, row.pack_name)[at] ^= 1


def broken_scene():
    """Return a store with garbage and needed chunks, whose catalog lacks some rows and a complete pack."""
    scene = Scene()
    scene.restart(1.0)  # all packs are closed
    lost = sorted(audit.references(scene.store.database))[::3]
    name = scene.store.pack_names()[0]
    number = "(SELECT pack_number FROM pack WHERE name = :name)"

    def forget(transaction):
        for vault_id, digest in lost:
            statement = "DELETE FROM chunk WHERE vault_id = :vault_id AND digest = :digest"
            transaction.run(statement, vault_id=vault_id, digest=digest)
        transaction.run(f"DELETE FROM chunk WHERE pack_number = {number}", name=name)
        transaction.run("DELETE FROM pack WHERE name = :name", name=name)

    scene.store.database.write(forget)
    return scene

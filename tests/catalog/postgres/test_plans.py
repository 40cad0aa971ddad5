"""Query plans of PostgreSQL: each statement with a promised cost uses the index made for it."""

from __future__ import annotations

from contextlib import closing

import pytest

from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.postgres.session import PREPARE_AFTER
from cryostore.catalog.queries import damage, references
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.rows import (
    chunk_lists,
    chunks,
    idempotency,
    jobs,
    keys,
    lineages,
    objects,
    packs,
    records,
    recovery_points,
    restore_jobs,
    uploads,
    vaults,
)
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow, PackedChunk
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent
from cryostore.catalog.rows.records import RecordKey
from support.services import postgres

DIGEST = b"d" * 32
HERE = Segment(1, 2)
VIEW = (HERE, Segment(2, 1))
CHUNK = ChunkRow(1, "p", 0, 10, 5)
CONTENT = ObjectContent(0, 0, 0, b"", 0)
SORTED = {"chunks.sound_in_pack", "chunks.all_in_pack", "chunks.last_end"}
"""Of one pack, whose chunks are few: an index in their order would cost more than they do."""
OF_VAULT = {"vault_id": ("vault_id = :vault_id", 1)}
OF_ONE_ROW = {"collection"}
"""Tables that are read as a whole, since there is no more of them."""

HOT = {
    "chunks.find": lambda t: chunks.find(t, 1, DIGEST),
    "chunks.is_known": lambda t: chunks.is_known(t, 1, DIGEST),
    "chunks.known_in_epoch": lambda t: chunks.known_in_epoch(t, 1, DIGEST),
    "chunks.known_lengths": lambda t: chunks.known_lengths(t, 1, [DIGEST, b"e" * 32]),
    "chunks.insert": lambda t: chunks.insert(t, 1, DIGEST, CHUNK, epoch=0, now_ms=0),
    "chunks.mark_used": lambda t: chunks.mark_used(t, 1, DIGEST),
    "chunks.page": lambda t: chunks.page(t, after=(1, DIGEST), limit=10),
    "chunks.count_step": lambda t: chunks.count_step(t, (1, DIGEST)),
    "chunks.condemn": lambda t: chunks.condemn(t, 1, DIGEST, epoch=1, now_ms=0),
    "chunks.remove": lambda t: chunks.remove(t, 1, DIGEST, epoch=1, before_ms=0),
    "chunks.sound_in_pack": lambda t: chunks.sound_in_pack(t, 1, from_offset=0, limit=10),
    "chunks.all_in_pack": lambda t: chunks.all_in_pack(t, 1, from_offset=0, limit=10),
    "chunks.last_end": lambda t: chunks.last_end(t, 1),
    "chunks.vault_ids": lambda t: list(chunks.vault_ids(t)),
    "chunks.delete_of_vault": lambda t: chunks.delete_of_vault(t, 3, 10),
    "chunks.move": lambda t: chunks.move(t, PackedChunk(1, DIGEST, 1, 0, 1, 1), from_pack=1, to_pack=2, to_offset=0),
    "chunk_lists.parts_from": lambda t: list(chunk_lists.parts_from(t, 1, 5)),
    "chunk_lists.part": lambda t: chunk_lists.part(t, 1, 0),
    "chunk_lists.delete_some": lambda t: chunk_lists.delete_some(t, 1, 10),
    "damage.page": lambda t: damage.page(t, after=(1, DIGEST), limit=10),
    "damage.mark": lambda t: damage.mark(t, LocatedChunk(1, DIGEST, 1, 0), now_ms=0),
    "damage.version_ranges": lambda t: damage.version_ranges(t, 1, b"n"),
    "damage.affected_points": lambda t: damage.affected_points(t, 1, 0, 5),
    "damage.child_lineages": lambda t: damage.child_lineages(t, 1, 0, 5),
    "idempotency.find": lambda t: idempotency.find(t, "o", "t", since_ms=0),
    "idempotency.delete_before": lambda t: idempotency.delete_before(t, 0, 10),
    "jobs.find": lambda t: jobs.find(t, "J"),
    "jobs.touch": lambda t: jobs.touch(t, "J", bytes_transferred=1, now_ms=0),
    "jobs.find_with_vault": lambda t: jobs.find_with_vault(t, "J"),
    "jobs.running": lambda t: jobs.running(t, 1, "arn"),
    "jobs.page": lambda t: jobs.page(t, conditions={}, before=(5, "J"), limit=10),
    "keys.newest_vault_keys": lambda t: keys.newest_vault_keys(t, 1, 2),
    "keys.access_key": lambda t: keys.access_key(t, "A"),
    "keys.secret": lambda t: keys.secret(t, "s"),
    "lineages.find": lambda t: lineages.find(t, 1),
    "lineages.view": lambda t: lineages.view(t, HERE),
    "lineages.neighbours": lambda t: lineages.neighbours(t, HERE),
    "lineages.dirty": lambda t: lineages.dirty(t, 10),
    "lineages.first_retired": lineages.first_retired,
    "lineages.is_needed": lambda t: lineages.is_needed(t, 1),
    "objects.find": lambda t: objects.find(t, VIEW, b"n"),
    "objects.page": lambda t: objects.page(t, VIEW, start=b"a", prefix=b"n", limit=10),
    "objects.page, unbounded": lambda t: objects.page(t, VIEW, start=b"a", prefix=b"", limit=10),
    "objects.put": lambda t: objects.put(t, HERE, b"n", CONTENT),
    "objects.remove": lambda t: objects.remove(t, VIEW, b"n", now_ms=0),
    "objects.change": lambda t: objects.change(t, VIEW),
    "objects.totals": lambda t: objects.totals(t, (HERE,)),
    "objects.written": lambda t: objects.written(t, HERE, below=1, after=None, limit=10),
    "objects.closed": lambda t: objects.closed(t, HERE, below=1, after=None, limit=10),
    "objects.truncate": lambda t: objects.truncate(t, 1, 1, 10),
    "objects.forget": lambda t: objects.forget(t, 1, 1, 3, 10),
    "packs.number_for": lambda t: packs.number_for(t, "p", epoch=0, now_ms=0),
    "packs.open_packs": packs.open_packs,
    "packs.not_retired": lambda t: packs.not_retired(t, after=0, limit=10),
    "packs.retired": lambda t: packs.retired(t, after=0, limit=10),
    "packs.retire": lambda t: packs.retire(t, 1, now_ms=0),
    "packs.drop": lambda t: packs.drop(t, 1, epoch=1, before_ms=0),
    "packs.least_verified": lambda t: packs.least_verified(t, after=(0, 0), verified_before_ms=9, limit=10),
    "records.due": lambda t: records.due(t, 10),
    "records.between": lambda t: records.between(t, 1, 1, 9),
    "records.above": lambda t: records.above(t, HERE, 10),
    "records.page": lambda t: records.page(t, RecordKey("commit", 1, 1), 10),
    "records.begin_commit": lambda t: records.begin_commit(t, Segment(1, 1)),
    "records.touch": lambda t: records.touch(t, RecordKey("commit", 1, 1)),
    "recovery_points.find": lambda t: recovery_points.find(t, "P"),
    "recovery_points.at": lambda t: recovery_points.at(t, HERE),
    "recovery_points.deleting": lambda t: recovery_points.deleting(t, 10),
    "recovery_points.segments": lambda t: recovery_points.segments(t, after="P", limit=10),
    "recovery_points.page": lambda t: recovery_points.page(t, conditions=OF_VAULT, before=(5, "P"), limit=10),
    "references.upload_chunks": lambda t: references.upload_chunks(t, after=(1, 1), limit=10),
    "references.objects": lambda t: references.objects(t, after=1, limit=10),
    "references.list_parts": lambda t: references.list_parts(t, 1, first=0, limit=10),
    "restore_jobs.find": lambda t: restore_jobs.find(t, "R"),
    "restore_jobs.open_job_of_point": lambda t: restore_jobs.open_job_of_point(t, "P"),
    "uploads.find": lambda t: uploads.find(t, "J", "U"),
    "uploads.chunk": lambda t: uploads.chunk(t, 1, 0),
    "uploads.add_chunk": lambda t: t.run_all([uploads.add_chunk_statement(1, ChunkEntry(0, 5, DIGEST, 0))]),
    "uploads.count_chunk": lambda t: t.run_all([uploads.count_chunk_statement(1, chunks_max=10)]),
    "uploads.chunk_page": lambda t: uploads.chunk_page(t, 1, after=0, limit=10),
    "uploads.counts": lambda t: uploads.counts(t, "J"),
    "uploads.delete_complete": lambda t: uploads.delete_complete(t, "J", 5),
    "uploads.jobs_with_uploads": lambda t: list(uploads.jobs_with_uploads(t)),
    "uploads.delete_of_job": lambda t: uploads.delete_of_job(t, "J", 10),
    "vaults.by_name": lambda t: vaults.by_name(t, "v"),
    "vaults.page": lambda t: vaults.page(t, after="a", limit=10),
    "vaults.is_used": lambda t: vaults.is_used(t, 1),
}
FILLED = """
    INSERT INTO vault (name, tags, created_ms) SELECT 'v' || n, '{}', 0 FROM generate_series(1, 5) AS n;
    INSERT INTO lineage (vault_id, next_generation, tip_generation, retired)
        SELECT 1 + n % 5, 9, 8, 0 FROM generate_series(1, 50) AS n;
    INSERT INTO object (lineage_id, name, from_generation, to_generation, removed, created_ms, length, chunk_count,
        summary_form) SELECT 1 + n % 50, decode(md5(n::text), 'hex'), 1 + n % 8, 9223372036854775807, 0, 0, 1, 1, 0
        FROM generate_series(1, 5000) AS n;
    INSERT INTO pack (name, open, created_ms) SELECT 'p' || n, 0, 0 FROM generate_series(1, 200) AS n;
    INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length)
        SELECT 1 + n % 5, sha256(n::text::bytea), 1, 1 + n % 200, n, 1, 1 FROM generate_series(1, 5000) AS n;
    INSERT INTO upload (upload_id, job_id, name, throw_on_duplicate, created_ms, chunk_count)
        SELECT 'U' || n, 'J' || n % 20, '', 0, 0, 0 FROM generate_series(1, 500) AS n;
    INSERT INTO upload_chunk (upload_number, chunk_index, length, form, digest)
        SELECT 1 + n % 500, n, 1, 0, sha256(n::text::bytea) FROM generate_series(1, 5000) AS n;
    ANALYZE
"""


ONE_GENERATION = """
    INSERT INTO object (lineage_id, name, from_generation, to_generation, removed, created_ms, length, chunk_count,
        summary_form) SELECT 1, decode(md5(n::text), 'hex'), 1, 9223372036854775807, 0, 0, 1, 1, 0
        FROM generate_series(1, 5000) AS n;
    INSERT INTO upload (upload_id, job_id, name, throw_on_duplicate, created_ms, chunk_count)
        SELECT 'U' || n, 'J1', '', 0, 0, 0 FROM generate_series(1, 5000) AS n;
    ANALYZE
"""


@pytest.fixture(scope="module")
def urls():
    """An empty catalog without statistics, and one with rows and statistics."""
    with postgres.new_database() as empty, postgres.new_database() as filled:
        with closing(PostgresDatabase(filled)) as database:
            database.write(lambda t: t.session.say(FILLED))
        yield {"empty": empty, "filled": filled}


class UndoneError(Exception):
    """Raised to roll the transaction back."""


def nodes(plan):
    """Yield the nodes of a plan, each before its children."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def plans(transaction, work):
    """Return the plans of all statements of a unit of work, as prepared statements."""
    before = {row[0] for row in transaction.rows("SELECT name FROM pg_prepared_statements")}
    for _ in range(PREPARE_AFTER + 1):
        transaction.run("SAVEPOINT again")
        work(transaction)
        transaction.run("ROLLBACK TO SAVEPOINT again")
    prepared = transaction.rows("SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements")
    for name, statement, count in prepared:
        if name not in before and "pg_prepared" not in statement and "SAVEPOINT" not in statement:
            values = f"({', '.join(['NULL'] * count)})" if count else ""
            (row,) = transaction.session.say(f'EXPLAIN (FORMAT JSON) EXECUTE "{name}"{values}').fetchall()
            yield statement, row[0][0]["Plan"]


def test_a_commit_does_not_read_its_base():
    """Statistics from a time with one generation must not make a query of another one read all of the first."""
    with postgres.new_database() as url, closing(PostgresDatabase(url)) as database:
        database.write(lambda t: t.session.say(ONE_GENERATION))
        found = []

        def look(transaction):
            work = lambda t: objects.written(t, Segment(1, 2), below=1, after=None, limit=10)  # noqa: E731 - as in HOT
            found.extend(node for _, plan in plans(transaction, work) for node in nodes(plan))
            work = lambda t: uploads.delete_of_job(t, "J2", 10)  # noqa: E731 - as above
            found.extend(node for _, plan in plans(transaction, work) for node in nodes(plan))
            raise UndoneError

        with pytest.raises(UndoneError):
            database.write(look)
    assert {"object_from", "upload_job"} <= {node.get("Index Name") for node in found}
    from_end_to_end = {node.get("Index Name") for node in found if "Index Cond" not in node}
    assert not {"object_pkey", "upload_pkey"} & from_end_to_end


@pytest.mark.parametrize("content", ["empty", "filled"])
def test_each_query_uses_its_index(urls, content):
    """With any content and with or without statistics: no query scans a whole table."""
    found = []

    def look(transaction):
        for name, work in HOT.items():
            for statement, plan in plans(transaction, work):
                for node in nodes(plan):
                    whole = node["Node Type"] == "Seq Scan" and node["Relation Name"] not in OF_ONE_ROW
                    # For an empty table the server may prefer a sort to an index in that order.
                    sort = node["Node Type"] == "Sort" and content == "filled" and name not in SORTED
                    if whole or sort or node["Node Type"] == "Bitmap Heap Scan":
                        found.append((name, node["Node Type"], statement))
        raise UndoneError

    with closing(PostgresDatabase(urls[content])) as database, pytest.raises(UndoneError):
        database.write(look)
    assert found == []

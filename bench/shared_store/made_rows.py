"""Catalog rows by the million, made by SQL in the tables of the real schema.

The rows satisfy the schema, but the made chunks have no readable bytes.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from cryostore.catalog.database import GENERATION_MAX
from cryostore.catalog.rows import chunk_lists
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.service.opening.shared_store import is_url

Run = Callable[..., list[Any]]

PAYLOAD_BYTES, SEALED_BYTES = 4_194_304, 4_194_400
"""Sizes of a made chunk, which does not compress."""
ROWS_IN_PLACE_MAX = 1_000_000
"""Up to this number, rows are inserted with the indexes in place. For more, PostgreSQL builds the indexes later."""
RANDOM_FILL_PERCENT = 69
"""The fill factor of index pages after random inserts: ln 2. Indexes that are built later get it, too."""
STEP_ROWS = 250_000
PLACE = re.compile(r"(?<!:):([a-z_]+)")

WORDS = {
    "postgres": {
        "numbers": "SELECT n FROM generate_series(:first, :last) AS n",
        "digest": "sha256(int8send(n))",
        "uuid": "gen_random_uuid()::text",
        "name": "convert_to('file-' || lpad(n::text, 9, '0'), 'UTF8')",
    },
    "sqlite": {
        "numbers": "WITH RECURSIVE c (n) AS"
        " (SELECT :first UNION ALL SELECT n + 1 FROM c WHERE n < :last) SELECT n FROM c",
        "digest": "randomblob(32)",
        "uuid": "lower(hex(randomblob(18)))",
        "name": "CAST(printf('file-%09d', n) AS BLOB)",
    },
}
MAKE_PACKS = (
    "INSERT INTO pack (name, open, created_ms, size_bytes) SELECT {uuid}, 0, 0, :size_bytes FROM ({numbers}) AS made"
)
MAKE_CHUNKS = (
    "INSERT INTO chunk (vault_id, digest, key_number, pack_number, pack_offset, sealed_length, length)"
    " SELECT :vault_id, {digest}, :key_number, :pack_number + n / :per_pack, (n - n / :per_pack * :per_pack) * :sealed,"
    " :sealed, :length FROM ({numbers}) AS made"
)
MAKE_OBJECTS = (
    "INSERT INTO object (lineage_id, name, from_generation, to_generation, removed, created_ms, length, chunk_count,"
    " summary, summary_form, chunks)"
    " SELECT :lineage_id, {name}, :generation, :end, 0, 0, :length, 1, :summary, 0, :chunks FROM ({numbers}) AS made"
)
RELATIONS = (
    "SELECT relation.relname, pg_table_size(relation.oid) FROM pg_class AS relation"
    " WHERE relation.relname IN ('chunk', 'pack', 'object') UNION ALL"
    " SELECT name.relname, pg_relation_size(indexrelid) FROM pg_index JOIN pg_class AS name ON name.oid = indexrelid"
    " WHERE indrelid IN ('chunk'::regclass, 'pack'::regclass, 'object'::regclass) ORDER BY 1"
)


def engine_of(catalog: str) -> str:
    """Return the engine of a catalog."""
    return "postgres" if is_url(catalog) else "sqlite"


@contextmanager
def statements(catalog: str) -> Iterator[Run]:
    """Yield a function that runs a statement and returns its rows. SQLite needs exclusive access during this time."""
    if engine_of(catalog) == "sqlite":
        with closing(sqlite3.connect(catalog, isolation_level=None)) as file:
            yield lambda statement, **values: file.execute(statement, values).fetchall()
        return
    with psycopg.connect(catalog, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:

        def run(statement: str, **values: Any) -> list[Any]:
            found = connection.execute(PLACE.sub(r"%(\1)s", statement).encode(), values or None)
            return found.fetchall() if found.description else []

        yield run


def make_chunks(catalog: str, rows: int, *, per_pack: int) -> None:
    """Make chunks and their packs, with the vault and the key of the existing chunks."""
    with statements(catalog) as run:
        ((vault_id, key_number),) = run("SELECT vault_id, key_number FROM chunk LIMIT 1")
        ((pack_number,),) = run("SELECT max(pack_number) + 1 FROM pack")
        _make(run, catalog, MAKE_PACKS, rows // per_pack + 1, size_bytes=SEALED_BYTES * per_pack)
        with _indexes_later(run, later=rows > ROWS_IN_PLACE_MAX and engine_of(catalog) == "postgres"):
            _make(
                run,
                catalog,
                MAKE_CHUNKS,
                rows,
                vault_id=vault_id,
                key_number=key_number,
                pack_number=pack_number,
                per_pack=per_pack,
                sealed=SEALED_BYTES,
                length=PAYLOAD_BYTES,
            )


def make_objects(catalog: str, rows: int, *, chunk: bytes) -> None:
    """Make objects of one chunk, named `file-000000000` and so on, in the only recovery point."""
    digest = hashlib.sha256(chunk).digest()
    with statements(catalog) as run:
        ((lineage_id, generation),) = run("SELECT lineage_id, generation FROM recovery_point")
        _make(
            run,
            catalog,
            MAKE_OBJECTS,
            rows,
            lineage_id=lineage_id,
            generation=generation,
            end=GENERATION_MAX,
            length=len(chunk),
            summary=hashlib.sha256(digest).digest(),
            chunks=chunk_lists.pack([ChunkEntry(0, len(chunk), digest, 0)]),
        )
        run("UPDATE recovery_point SET object_count = object_count + :rows", rows=rows)


def refresh_statistics(catalog: str) -> None:
    """Let the database update its statistics now, without waiting for its background task."""
    with statements(catalog) as run:
        run("VACUUM ANALYZE" if engine_of(catalog) == "postgres" else "PRAGMA wal_checkpoint(TRUNCATE)")


def sizes_bytes(catalog: str) -> dict[str, int]:
    """Return the bytes of tables and indexes by name; SQLite has only a total."""
    with statements(catalog) as run:
        if engine_of(catalog) == "postgres":
            return {name: int(size) for name, size in run(RELATIONS)}
        ((pages,),), ((page_bytes,),) = run("PRAGMA page_count"), run("PRAGMA page_size")
        return {"file": pages * page_bytes}


def _make(run: Run, catalog: str, statement: str, rows: int, **values: Any) -> None:
    text = statement.format(**WORDS[engine_of(catalog)])
    for first in range(0, rows, STEP_ROWS):
        run(text, first=first, last=min(first + STEP_ROWS, rows) - 1, **values)


@contextmanager
def _indexes_later(run: Run, *, later: bool) -> Iterator[None]:
    if not later:
        yield
        return
    ((of_packs,),) = run("SELECT indexdef FROM pg_indexes WHERE indexname = 'chunk_pack'")
    run("DROP INDEX chunk_pack")
    run("ALTER TABLE chunk DROP CONSTRAINT chunk_pkey")
    yield
    run(of_packs)
    run(f"ALTER TABLE chunk ADD PRIMARY KEY (vault_id, digest) WITH (fillfactor = {RANDOM_FILL_PERCENT})")
    run("ALTER INDEX chunk_pkey RESET (fillfactor)")

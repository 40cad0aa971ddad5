"""Object versions, read through views and written at one generation. The rules: `lineages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryostore.catalog.database import GENERATION_MAX, Row, Transaction
from cryostore.catalog.rows import chunk_lists
from cryostore.catalog.rows.lineages import Segment, View


class ObjectContent(NamedTuple):
    """The content of an object version. `chunks` is its packed chunk list, or None if `chunk_list_id` names one."""

    created_ms: int
    length: int
    chunk_count: int
    summary: bytes
    summary_form: int
    metadata_string: str | None = None
    metadata_digest: bytes | None = None
    metadata_length: int | None = None
    metadata_form: int | None = None
    chunk_list_id: int | None = None
    chunks: bytes | None = None


class ObjectRow(NamedTuple):
    """An object version without its chunks."""

    object_id: int
    lineage_id: int
    name: bytes
    from_generation: int
    removed: bool
    created_ms: int
    length: int
    chunk_count: int
    summary: bytes
    summary_form: int
    metadata_string: str | None
    metadata_digest: bytes | None
    metadata_length: int | None
    metadata_form: int | None
    chunk_list_id: int | None


class WrittenObject(NamedTuple):
    """An object version as a record holds it, or the removal of a name. `place`: its first generation, and its id."""

    place: tuple[int, int]
    name: bytes
    removed: int
    content: ObjectContent


class Totals(NamedTuple):
    """Number of objects, and of bytes in them."""

    object_count: int
    size_bytes: int


COLUMNS = ", ".join(ObjectRow._fields)
CONTENT_COLUMNS = ", ".join(ObjectContent._fields)
CONTENT_VALUES = ", ".join(f":{field}" for field in ObjectContent._fields)
SEEN = "lineage_id = :lineage_id AND from_generation <= :generation AND to_generation > :generation"
ROWS_PER_STEP = 1000
NAMES_PER_QUERY = 500
CLOSED = f"to_generation <> {GENERATION_MAX}"
"""The condition of the partial index `object_to`, word for word: otherwise engines do not use the index."""


def find(transaction: Transaction, view: View, name: bytes) -> ObjectRow | None:
    """Return the object of this name in the view."""
    for segment in view:
        if (row := _version(transaction, segment, name)) is not None:
            return None if row.removed else row
    return None


def by_id(transaction: Transaction, object_id: int) -> ObjectRow | None:
    """Return the object version with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM object WHERE object_id = :object_id", object_id=object_id)
    return ObjectRow(*row) if row else None


def packed_chunks(transaction: Transaction, object_id: int) -> bytes | None:
    """Return the packed chunk list in the object's own row."""
    row = transaction.row("SELECT chunks FROM object WHERE object_id = :object_id", object_id=object_id)
    return row[0] if row else None


def page(
    transaction: Transaction,
    view: View,
    *,
    start: bytes,
    prefix: bytes,
    limit: int,
    created_from_ms: int | None = None,
    created_to_ms: int | None = None,
) -> list[ObjectRow]:
    """Return at most `limit` objects of the view in ascending byte order of their names, from `start` on, inclusive.

    Only those whose names begin with `prefix`, and that were created from `created_from_ms` on and before
    `created_to_ms`. Fewer than `limit` means that there are no more.
    """
    found: list[ObjectRow] = []
    start = max(start, prefix)
    end = _after_prefix(prefix)
    while len(found) < limit:
        rows, more = _merged(transaction, view, start, end, limit)
        found.extend(
            row
            for row in rows
            if not row.removed
            and (created_from_ms is None or row.created_ms >= created_from_ms)
            and (created_to_ms is None or row.created_ms < created_to_ms)
        )
        if not more:
            break
        start = rows[-1].name + b"\0"
    return found[:limit]


def totals(transaction: Transaction, view: View) -> Totals:
    """Return the number of objects in a view, and of their bytes. The cost is proportional to that number."""
    if len(view) == 1:
        row = transaction.row(
            f"SELECT count(*), coalesce(sum(length), 0) FROM object WHERE {SEEN} AND removed = 0", **view[0]._asdict()
        )
        assert row is not None
        return Totals(row[0], row[1])
    count = size = 0
    start = b""
    while rows := page(transaction, view, start=start, prefix=b"", limit=ROWS_PER_STEP):
        count, size = count + len(rows), size + sum(row.length for row in rows)
        start = rows[-1].name + b"\0"
    return Totals(count, size)


def _merged(
    transaction: Transaction, view: View, start: bytes, end: bytes | None, limit: int
) -> tuple[list[ObjectRow], bool]:
    """Return the next versions of the view by name, removed ones included, and whether there may be more."""
    merged: dict[bytes, ObjectRow] = {}
    complete_to: bytes | None = None
    for segment in reversed(view):
        rows = _segment_page(transaction, segment, start, end, limit)
        if len(rows) == limit and (complete_to is None or rows[-1].name < complete_to):
            complete_to = rows[-1].name
        merged.update((row.name, row) for row in rows)
    names = sorted(name for name in merged if complete_to is None or name <= complete_to)
    return [merged[name] for name in names], complete_to is not None


def _segment_page(
    transaction: Transaction, segment: Segment, start: bytes, end: bytes | None, limit: int
) -> list[ObjectRow]:
    before = "" if end is None else " AND name < :end"
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM object WHERE {SEEN} AND name >= :start{before} ORDER BY name LIMIT :limit",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
        start=start,
        end=end,
        limit=limit,
    )
    return [ObjectRow(*row) for row in rows]


def _after_prefix(prefix: bytes) -> bytes | None:
    """Return the first name after all that begin with `prefix`; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else None


def _version(transaction: Transaction, segment: Segment, name: bytes) -> ObjectRow | None:
    row = transaction.row(
        f"SELECT {COLUMNS} FROM object WHERE {SEEN} AND name = :name",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
        name=name,
    )
    return ObjectRow(*row) if row else None


def put(transaction: Transaction, segment: Segment, name: bytes, content: ObjectContent) -> int:
    """Insert an object at the job's segment, in place of any of that name; return its id."""
    _clear(transaction, segment, name)
    row = transaction.row(
        "INSERT INTO object (lineage_id, name, from_generation, to_generation, removed,"
        f" {CONTENT_COLUMNS}) VALUES (:lineage_id, :name, :generation, :end, 0, {CONTENT_VALUES}) RETURNING object_id",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
        name=name,
        end=GENERATION_MAX,
        **content._asdict(),
    )
    assert row is not None
    return int(row[0])


def remove(transaction: Transaction, view: View, name: bytes, *, now_ms: int) -> bool:
    """Remove an object, whether written in the job or inherited, from the job's view; return whether there was one."""
    if find(transaction, view, name) is None:
        return False
    _clear(transaction, view[0], name)
    if find(transaction, view[1:], name) is not None:
        transaction.run(
            "INSERT INTO object (lineage_id, name, from_generation, to_generation, removed,"
            " created_ms, length, chunk_count, summary, summary_form)"
            " VALUES (:lineage_id, :name, :generation, :end, 1, :now_ms, 0, 0, NULL, 0)",
            lineage_id=view[0].lineage_id,
            generation=view[0].generation,
            name=name,
            end=GENERATION_MAX,
            now_ms=now_ms,
        )
    return True


def _clear(transaction: Transaction, segment: Segment, name: bytes) -> None:
    """End or delete the version of `name` that the segment's own lineage shows."""
    row = _version(transaction, segment, name)
    if row is None:
        return
    if row.from_generation == segment.generation:
        if row.chunk_list_id is not None:
            chunk_lists.delete(transaction, row.chunk_list_id)
        transaction.run("DELETE FROM object WHERE object_id = :object_id", object_id=row.object_id)
    else:
        transaction.run(
            "UPDATE object SET to_generation = :generation WHERE object_id = :object_id",
            generation=segment.generation,
            object_id=row.object_id,
        )


def change(transaction: Transaction, view: View) -> Totals:
    """Return how the job's generation changes the totals of its base; negative if there are fewer.

    The cost is proportional to what the job changed.
    """
    added, closed = transaction.rows(
        "SELECT count(*), coalesce(sum(length), 0) FROM object"
        " WHERE lineage_id = :lineage_id AND from_generation = :generation AND removed = 0"
        " UNION ALL SELECT count(*), coalesce(sum(length), 0) FROM object"
        f" WHERE lineage_id = :lineage_id AND to_generation = :generation AND {CLOSED} AND removed = 0",
        **view[0]._asdict(),
    )
    hidden = _hidden(transaction, view)
    return Totals(int(added[0] - closed[0] - hidden.object_count), int(added[1] - closed[1] - hidden.size_bytes))


def _hidden(transaction: Transaction, view: View) -> Totals:
    """Return the totals of the objects further down the view that the job's generation hides or replaces.

    Those are the ones whose name this lineage touches for the first time.
    """
    if len(view) == 1:
        return Totals(0, 0)
    names = transaction.rows(
        "SELECT name FROM object AS here WHERE object_id IN"
        " (SELECT object_id FROM object WHERE lineage_id = :lineage_id AND from_generation = :generation)"
        " AND NOT EXISTS (SELECT 1 FROM object AS earlier WHERE earlier.lineage_id = :lineage_id"
        " AND earlier.name = here.name AND earlier.to_generation = :generation)",
        **view[0]._asdict(),
    )
    lengths = _lengths(transaction, view[1:], [name for (name,) in names])
    return Totals(len(lengths), sum(lengths))


def _lengths(transaction: Transaction, view: View, names: Sequence[bytes]) -> list[int]:
    """Return the lengths of the objects in the view that have one of these names.

    Runs one query per segment of the view for every `NAMES_PER_QUERY` names.
    """
    lengths: list[int] = []
    for start in range(0, len(names), NAMES_PER_QUERY):
        wanted = set(names[start : start + NAMES_PER_QUERY])
        for segment in view:
            some = {f"n{place}": name for place, name in enumerate(sorted(wanted))}
            places = ", ".join(f":{place}" for place in some)
            rows = transaction.rows(
                f"SELECT name, length, removed FROM object WHERE {SEEN} AND name IN ({places})",
                **segment._asdict(),
                **some,
            )
            lengths += [length for _, length, removed in rows if not removed]
            wanted.difference_update(name for name, _, _ in rows)
            if not wanted:
                break
    return lengths


def written(
    transaction: Transaction, segment: Segment, *, below: int, after: tuple[int, int] | None, limit: int
) -> list[WrittenObject]:
    """Return the versions that a generation sees and the generation `below` does not, in the order of their `place`."""
    begin, object_id = after or (below, GENERATION_MAX)
    rows = transaction.rows(
        f"SELECT object_id, from_generation, name, removed, {CONTENT_COLUMNS} FROM object"
        " WHERE lineage_id = :lineage_id AND (from_generation, object_id) > (:begin, :object_id)"
        " AND from_generation <= :generation AND to_generation > :generation"
        " ORDER BY from_generation, object_id LIMIT :limit",
        begin=begin,
        object_id=object_id,
        limit=limit,
        **segment._asdict(),
    )
    return [WrittenObject((row[1], row[0]), row[2], row[3], ObjectContent(*row[4:])) for row in rows]


def closed(
    transaction: Transaction, segment: Segment, *, below: int, after: tuple[int, int, int] | None, limit: int
) -> list[tuple[tuple[int, int, int], bytes]]:
    """Return the names that the generation `below` has and this one does not, each after its place."""
    end, begin, object_id = after or (below, GENERATION_MAX, 0)
    rows = transaction.rows(
        "SELECT to_generation, from_generation, object_id, name FROM object AS here WHERE lineage_id = :lineage_id"
        f" AND {CLOSED} AND (to_generation, from_generation, object_id) > (:end, :begin, :object_id)"
        " AND to_generation <= :generation AND from_generation <= :below"
        " AND NOT EXISTS (SELECT 1 FROM object AS next WHERE next.lineage_id = :lineage_id"
        " AND next.name = here.name AND next.from_generation > :below AND next.from_generation <= :generation"
        " AND next.to_generation > :generation)"
        " ORDER BY to_generation, from_generation, object_id LIMIT :limit",
        end=end,
        begin=begin,
        object_id=object_id,
        below=below,
        limit=limit,
        **segment._asdict(),
    )
    return [((row[0], row[1], row[2]), row[3]) for row in rows]


def close(transaction: Transaction, segment: Segment, name: bytes) -> None:
    """End the current version of a name; for rebuilding the catalog, generation by generation."""
    transaction.run(
        "UPDATE object SET to_generation = :generation WHERE lineage_id = :lineage_id AND name = :name"
        f" AND to_generation = {GENERATION_MAX} AND from_generation < :generation",
        name=name,
        **segment._asdict(),
    )


def put_back(transaction: Transaction, segment: Segment, row: WrittenObject) -> None:
    """Insert a version that `written` returned, in place of the one before it; for rebuilding the catalog."""
    close(transaction, segment, row.name)
    transaction.run(
        f"INSERT INTO object (lineage_id, name, from_generation, to_generation, removed, {CONTENT_COLUMNS})"
        f" VALUES (:lineage_id, :name, :generation, {GENERATION_MAX}, :removed, {CONTENT_VALUES})",
        name=row.name,
        removed=row.removed,
        **segment._asdict(),
        **row.content._asdict(),
    )


def truncate(transaction: Transaction, lineage_id: int, below: int, limit: int) -> bool:
    """Take a lineage back to its generation `below`, the newest that is seen, by at most `limit` rows.

    Deletes what later generations added and reopens what they ended, so that a job may continue from `below`. Returns
    whether everything is done; to be repeated until then.
    """
    rows = transaction.rows(
        "SELECT object_id, chunk_list_id FROM object"
        " WHERE lineage_id = :lineage_id AND from_generation > :below LIMIT :limit",
        lineage_id=lineage_id,
        below=below,
        limit=limit,
    )
    if not _delete(transaction, rows, limit):
        return False
    # Only now: with later versions of the name still there, a version reopened before would overlap them.
    reopened = transaction.run(
        "UPDATE object SET to_generation = :end WHERE object_id IN (SELECT object_id FROM object"
        f" WHERE lineage_id = :lineage_id AND to_generation > :below AND {CLOSED} LIMIT :limit)",
        lineage_id=lineage_id,
        below=below,
        end=GENERATION_MAX,
        limit=limit,
    )
    return reopened < limit


def forget(transaction: Transaction, lineage_id: int, below: int, above: int, limit: int) -> bool:
    """Delete at most `limit` rows that only generations between `below` and `above` of a lineage see.

    None of these is seen. Returns whether none are left; to be repeated until then.
    """
    rows = transaction.rows(
        "SELECT object_id, chunk_list_id FROM object WHERE lineage_id = :lineage_id"
        f" AND to_generation > :below AND to_generation <= :above AND {CLOSED}"
        " AND from_generation > :below LIMIT :limit",
        lineage_id=lineage_id,
        below=below,
        above=above,
        limit=limit,
    )
    return _delete(transaction, rows, limit)


def _delete(transaction: Transaction, rows: Sequence[Row], limit: int) -> bool:
    """Delete versions and their chunk lists, at most `limit` rows in all; return whether it was less.

    A version is deleted after its list. No reader sees an invisible version, so none sees that its list is half gone.
    """
    left = limit
    for object_id, chunk_list_id in rows:
        if chunk_list_id is not None:
            left -= chunk_lists.delete_some(transaction, chunk_list_id, left)
        if left <= 0:
            return False
        transaction.run("DELETE FROM object WHERE object_id = :object_id", object_id=object_id)
        left -= 1
    return left > 0

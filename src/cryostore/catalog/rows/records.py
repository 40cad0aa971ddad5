"""Records that nouns of the catalog must have outside it, and how far their recording is.

A change to a noun increments its row in the same transaction (`touch`). The number that it gets names the record that
is written next. A record counts once it is finished (`finish`). If a crash comes in between, the noun is due, and is
recorded later under a new number. The content of a record: `service.recording`.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.lineages import Segment

STORE = "store"
VAULT = "vault"
COMMIT = "commit"


class RecordKey(NamedTuple):
    """The noun of a record: the store; a vault, by its id; or a commit, by its lineage and generation."""

    noun: str
    number: int = 0
    generation: int = 0


class RecordRow(NamedTuple):
    """How far the recording of a noun is. `entries` is the number of entries in the finished record.

    `previous` is the generation that the record of a commit builds on, 0 if none. The generations between the two are
    not seen.
    """

    noun: str
    number: int
    generation: int
    changes: int
    recorded: int
    parts: int
    entries: int
    gone: int
    previous: int | None

    @property
    def key(self) -> RecordKey:
        """The noun of the record."""
        return RecordKey(self.noun, self.number, self.generation)


FIRST = RecordKey("")
"""Sorts before every key."""
COLUMNS = ", ".join(RecordRow._fields)
DUE = "recorded < changes"
"""The condition of the partial index `record_due`, word for word."""
IS_KEY = "noun = :noun AND number = :number AND generation = :generation"


def of_commit(segment: Segment) -> RecordKey:
    """Return the key of the commit at a segment."""
    return RecordKey(COMMIT, segment.lineage_id, segment.generation)


def touch(transaction: Transaction, key: RecordKey, *, previous: int | None = None) -> int:
    """Note that a noun has changed, or is new; return the number of the record to write."""
    row = transaction.row(
        "INSERT INTO record (noun, number, generation, changes, previous)"
        " VALUES (:noun, :number, :generation, 1, :previous)"
        " ON CONFLICT (noun, number, generation) DO UPDATE SET changes = record.changes + 1 RETURNING changes",
        previous=previous,
        **key._asdict(),
    )
    assert row is not None
    return int(row[0])


def begin_commit(transaction: Transaction, segment: Segment) -> RecordRow:
    """Note a commit to a lineage, before its tip moves. The record to write has the number `changes` of the row."""
    row = transaction.row(
        "INSERT INTO record (noun, number, generation, changes, previous) VALUES"
        " (:noun, :number, :generation, 1, (SELECT tip_generation FROM lineage WHERE lineage_id = :number))"
        " ON CONFLICT (noun, number, generation) DO UPDATE SET changes = record.changes + 1"
        f" RETURNING {COLUMNS}",
        **of_commit(segment)._asdict(),
    )
    assert row is not None
    return RecordRow(*row)


def touch_unseen(transaction: Transaction) -> int:
    """Note that the commits which nothing sees any more have changed, so that their records shrink; return how many.

    A record that could not be read when the catalog was rebuilt has a row without a number, and stays.
    """
    return transaction.run(
        "UPDATE record SET changes = changes + 1 WHERE noun = 'commit' AND gone = 0 AND recorded = changes"
        " AND recorded > 0 AND NOT EXISTS (SELECT 1 FROM recovery_point AS point WHERE point.lineage_id = record.number"
        " AND point.generation = record.generation AND point.status <> 'DELETING')"
        " AND NOT EXISTS (SELECT 1 FROM lineage WHERE lineage.parent_lineage_id = record.number"
        " AND lineage.parent_generation = record.generation AND lineage.retired = 0)"
    )


def touch_known(transaction: Transaction, key: RecordKey) -> RecordRow | None:
    """As `touch`, for a noun that is recorded or waits to be; return its row with the number, None if it is neither."""
    row = transaction.row(
        f"UPDATE record SET changes = changes + 1 WHERE {IS_KEY} AND gone = 0 RETURNING {COLUMNS}", **key._asdict()
    )
    return RecordRow(*row) if row else None


def end(transaction: Transaction, key: RecordKey) -> None:
    """Note that a noun is gone: its record must be deleted, and then the row."""
    transaction.run(f"UPDATE record SET gone = 1, changes = changes + 1 WHERE {IS_KEY}", **key._asdict())


def find(transaction: Transaction, key: RecordKey) -> RecordRow | None:
    """Return the row of a noun."""
    row = transaction.row(f"SELECT {COLUMNS} FROM record WHERE {IS_KEY}", **key._asdict())
    return RecordRow(*row) if row else None


def due(transaction: Transaction, limit: int, *, after: RecordKey = FIRST) -> list[RecordRow]:
    """Return nouns with unrecorded changes in the order of their keys, after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM record WHERE {DUE} AND (noun, number, generation) > (:noun, :number, :generation)"
        " ORDER BY noun, number, generation LIMIT :limit",
        limit=limit,
        **after._asdict(),
    )
    return [RecordRow(*row) for row in rows]


def above(transaction: Transaction, segment: Segment, limit: int) -> list[RecordRow]:
    """Return the rows of commits to a lineage above a generation, newest first."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM record WHERE noun = 'commit' AND number = :lineage_id AND generation > :generation"
        " ORDER BY generation DESC LIMIT :limit",
        limit=limit,
        **segment._asdict(),
    )
    return [RecordRow(*row) for row in rows]


def between(transaction: Transaction, lineage_id: int, below: int, above: int) -> list[RecordKey]:
    """Return the records that still hold rows which no generation from `below` to `above` sees.

    Those are the records of generations between the two, and the record of `above` if it builds on one of them.
    """
    rows = transaction.rows(
        "SELECT generation FROM record WHERE noun = 'commit' AND number = :lineage_id AND (generation > :below"
        " AND generation < :above OR generation = :above AND gone = 0 AND (previous > :below OR recorded = 0))"
        " ORDER BY generation",
        lineage_id=lineage_id,
        below=below,
        above=above,
    )
    return [RecordKey(COMMIT, lineage_id, generation) for (generation,) in rows]


def between_keys(transaction: Transaction, first: RecordKey, last: RecordKey) -> list[RecordKey]:
    """Return the keys of all rows from one key to another, both included."""
    rows = transaction.rows(
        "SELECT noun, number, generation FROM record WHERE (noun, number, generation) >= (:noun, :number, :generation)"
        " AND (noun, number, generation) <= (:last_noun, :last_number, :last_generation)",
        last_noun=last.noun,
        last_number=last.number,
        last_generation=last.generation,
        **first._asdict(),
    )
    return [RecordKey(*row) for row in rows]


def page(transaction: Transaction, after: RecordKey, limit: int) -> list[RecordRow]:
    """Return all rows in the order of their keys, after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM record WHERE (noun, number, generation) > (:noun, :number, :generation)"
        " ORDER BY noun, number, generation LIMIT :limit",
        limit=limit,
        **after._asdict(),
    )
    return [RecordRow(*row) for row in rows]


def touch_following(transaction: Transaction, key: RecordKey) -> list[RecordKey]:
    """Note that the commits whose records build on this one have changed; return their keys."""
    rows = transaction.rows(
        "UPDATE record SET changes = changes + 1 WHERE noun = 'commit' AND noun = :noun AND number = :number"
        " AND generation > :generation AND previous = :generation AND gone = 0 RETURNING generation",
        **key._asdict(),
    )
    return [RecordKey(COMMIT, key.number, generation) for (generation,) in rows]


def finish(
    transaction: Transaction, key: RecordKey, change: int, *, parts: int, entries: int, previous: int | None
) -> RecordRow | None:
    """Note that the record with this number is finished. Return the row as it was before, or None if it is not needed.

    It is not needed if the noun is gone, or a record with a higher number was finished before.
    """
    before = None if change == 1 else find(transaction, key)  # the first record has none before it
    row = transaction.row(
        "UPDATE record SET recorded = :change, parts = :parts, entries = :entries, previous = :previous"
        f" WHERE {IS_KEY} AND gone = 0 AND recorded < :change RETURNING {COLUMNS}",
        previous=previous,
        change=change,
        parts=parts,
        entries=entries,
        **key._asdict(),
    )
    if row is None:
        return None
    return before or RecordRow(*row)._replace(recorded=0, parts=0, entries=0)


def delete(transaction: Transaction, row: RecordRow) -> bool:
    """Delete the row of a noun whose record is deleted; return whether the row was still as given."""
    deleted = transaction.run(
        f"DELETE FROM record WHERE {IS_KEY} AND recorded = :recorded AND parts = :parts", **row._asdict()
    )
    return deleted == 1


def insert(transaction: Transaction, row: RecordRow) -> None:
    """Insert a row for a record that exists; for rebuilding the catalog."""
    values = ", ".join(f":{field}" for field in RecordRow._fields)
    transaction.run(f"INSERT INTO record ({COLUMNS}) VALUES ({values})", **row._asdict())

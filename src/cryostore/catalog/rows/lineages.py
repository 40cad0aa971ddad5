"""Lineages: chains of recovery points, and the views that jobs and recovery points have of them.

The rules of generations, on which all handling of objects rests:

1. A lineage gives out each generation once, to one job. The job's rows carry it, and are invisible until the job's
   commit makes it the lineage's tip: a commit moves no row.
2. An object version is visible to the generations from its `from_generation` up to, not including, its
   `to_generation`.
3. Only a job whose base is the tip of a clean lineage continues in that lineage. Any other job with a base starts a
   lineage of its own with the base as its parent, and looks through to it for every name that it has no row for.
4. A job that ends without a commit leaves its lineage dirty, until `objects.truncate` has taken the lineage back to
   its tip. No job continues in a dirty lineage.
5. A row is deleted when none of its generations is seen. Recovery points, open jobs, and the lineages that began on a
   generation see it. Between two seen generations `objects.forget` removes what neither sees; above the newest seen
   one `objects.truncate` takes the lineage back to it, and makes it the tip.
6. A lineage that holds nothing and is not needed is retired: its row is deleted after the objects that only it saw in
   its parent are gone.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class Segment(NamedTuple):
    """A lineage at one generation."""

    lineage_id: int
    generation: int


View = tuple[Segment, ...]
"""The segments that a job or a recovery point sees: its own first, then those it looks through to."""


class LineageRow(NamedTuple):
    """A lineage; see the rules of this module."""

    lineage_id: int
    vault_id: int
    parent_lineage_id: int | None
    parent_generation: int | None
    next_generation: int
    tip_generation: int
    dirty_generation: int | None
    retired: bool

    @property
    def parent(self) -> Segment | None:
        """The segment on which the lineage began."""
        if self.parent_lineage_id is None or self.parent_generation is None:
            return None
        return Segment(self.parent_lineage_id, self.parent_generation)


COLUMNS = ", ".join(LineageRow._fields)
SEEN = (
    "SELECT generation FROM recovery_point WHERE lineage_id = :lineage_id AND status <> 'DELETING'"
    " UNION ALL SELECT generation FROM backup_job WHERE lineage_id = :lineage_id AND completed_ms IS NULL"
    " UNION ALL SELECT parent_generation FROM lineage WHERE parent_lineage_id = :lineage_id AND retired = 0"
)


def insert(transaction: Transaction, vault_id: int, parent: Segment | None) -> int:
    """Begin a lineage, on `parent` if given; return its id."""
    row = transaction.row(
        "INSERT INTO lineage (vault_id, parent_lineage_id, parent_generation, next_generation, tip_generation, retired)"
        " VALUES (:vault_id, :parent_lineage_id, :parent_generation, 1, 0, 0) RETURNING lineage_id",
        vault_id=vault_id,
        parent_lineage_id=parent.lineage_id if parent else None,
        parent_generation=parent.generation if parent else None,
    )
    assert row is not None
    return int(row[0])


def find(transaction: Transaction, lineage_id: int) -> LineageRow | None:
    """Return the lineage with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM lineage WHERE lineage_id = :lineage_id", lineage_id=lineage_id)
    return LineageRow(*row) if row else None


def view(transaction: Transaction, segment: Segment) -> View:
    """Return all segments that `segment` sees, itself first."""
    segments = [segment]
    while True:
        row = transaction.row(
            "SELECT parent_lineage_id, parent_generation FROM lineage"
            " WHERE lineage_id = :lineage_id AND parent_lineage_id IS NOT NULL",
            lineage_id=segments[-1].lineage_id,
        )
        if row is None:
            return tuple(segments)
        segments.append(Segment(row[0], row[1]))


def take_generation(transaction: Transaction, lineage_id: int) -> int:
    """Give out the next generation; it is never given out again."""
    row = transaction.row(
        "UPDATE lineage SET next_generation = next_generation + 1 WHERE lineage_id = :lineage_id"
        " RETURNING next_generation - 1",
        lineage_id=lineage_id,
    )
    assert row is not None
    return int(row[0])


def set_tip(transaction: Transaction, segment: Segment) -> None:
    """Make a generation the newest committed one."""
    transaction.run(
        "UPDATE lineage SET tip_generation = :generation WHERE lineage_id = :lineage_id",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
    )


def set_dirty(transaction: Transaction, segment: Segment) -> None:
    """Note that the rows of this generation must be removed."""
    transaction.run(
        "UPDATE lineage SET dirty_generation = :generation WHERE lineage_id = :lineage_id",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
    )


def set_clean(transaction: Transaction, lineage_id: int) -> None:
    """Note that no rows are left to remove."""
    transaction.run("UPDATE lineage SET dirty_generation = NULL WHERE lineage_id = :lineage_id", lineage_id=lineage_id)


def dirty(transaction: Transaction, limit: int) -> list[Segment]:
    """Return lineages with rows to remove, and the generation that wrote them."""
    rows = transaction.rows(
        "SELECT lineage_id, dirty_generation FROM lineage WHERE dirty_generation IS NOT NULL LIMIT :limit", limit=limit
    )
    return [Segment(*row) for row in rows]


def retire(transaction: Transaction, lineage_id: int) -> None:
    """Note that the lineage is empty and not needed."""
    transaction.run("UPDATE lineage SET retired = 1 WHERE lineage_id = :lineage_id", lineage_id=lineage_id)


def first_retired(transaction: Transaction) -> LineageRow | None:
    """Return a retired lineage."""
    row = transaction.row(f"SELECT {COLUMNS} FROM lineage WHERE retired = 1 ORDER BY lineage_id LIMIT 1")
    return LineageRow(*row) if row else None


def neighbours(transaction: Transaction, segment: Segment) -> tuple[int, int | None]:
    """Return the nearest seen generations: up to this one (0 if none), and above it (None if none).

    Seen are the generations of recovery points that are not being deleted, of open jobs, and those that other lineages
    began on.
    """
    row = transaction.row(
        "SELECT max(CASE WHEN generation <= :generation THEN generation END),"
        f" min(CASE WHEN generation > :generation THEN generation END) FROM ({SEEN}) AS seen",
        lineage_id=segment.lineage_id,
        generation=segment.generation,
    )
    below, above = row or (None, None)
    return below or 0, above


def is_seen(transaction: Transaction, segment: Segment) -> bool:
    """Whether this generation of its lineage is seen; see `neighbours`."""
    below, _ = neighbours(transaction, segment)
    return below == segment.generation


def is_needed(transaction: Transaction, lineage_id: int) -> bool:
    """Whether a recovery point, an open job or another lineage needs the lineage, or it holds rows."""
    row = transaction.row(
        "SELECT EXISTS (SELECT 1 FROM recovery_point WHERE lineage_id = :lineage_id)"
        " OR EXISTS (SELECT 1 FROM backup_job WHERE lineage_id = :lineage_id AND completed_ms IS NULL)"
        " OR EXISTS (SELECT 1 FROM lineage WHERE parent_lineage_id = :lineage_id)"
        " OR EXISTS (SELECT 1 FROM object WHERE lineage_id = :lineage_id)",
        lineage_id=lineage_id,
    )
    return bool(row and row[0])


def ids_descending(transaction: Transaction) -> list[int]:
    """Return all lineages; those that began on others come before these."""
    return [row[0] for row in transaction.rows("SELECT lineage_id FROM lineage ORDER BY lineage_id DESC")]


def seen(transaction: Transaction, lineage_id: int) -> list[int]:
    """Return the seen generations of a lineage in order; see `neighbours`."""
    rows = transaction.rows(f"SELECT DISTINCT generation FROM ({SEEN}) AS seen ORDER BY 1", lineage_id=lineage_id)
    return [row[0] for row in rows]


def put_back(transaction: Transaction, lineage_id: int, vault_id: int, parent: Segment | None) -> None:
    """Insert a lineage with its old id, unless it exists; for rebuilding the catalog."""
    transaction.run(
        "INSERT INTO lineage (lineage_id, vault_id, parent_lineage_id, parent_generation, next_generation,"
        " tip_generation, retired) VALUES (:lineage_id, :vault_id, :parent_lineage_id, :parent_generation, 1, 0, 0)"
        " ON CONFLICT (lineage_id) DO NOTHING",
        lineage_id=lineage_id,
        vault_id=vault_id,
        parent_lineage_id=parent.lineage_id if parent else None,
        parent_generation=parent.generation if parent else None,
    )
    transaction.pass_number("lineage", "lineage_id", lineage_id)


def skip_generations(transaction: Transaction, lineage_id: int, generation: int) -> None:
    """Never give out this generation or an earlier one again."""
    transaction.run(
        "UPDATE lineage SET next_generation = :next WHERE lineage_id = :lineage_id AND next_generation < :next",
        lineage_id=lineage_id,
        next=generation + 1,
    )


def delete(transaction: Transaction, lineage_id: int) -> None:
    """Delete the row of a lineage that is not needed."""
    transaction.run("DELETE FROM lineage WHERE lineage_id = :lineage_id", lineage_id=lineage_id)

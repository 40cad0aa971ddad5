"""Packs: which of them a process still writes to, and how an empty one is deleted.

The rules: `maintenance.garbage_collection.collect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction


class PackRow(NamedTuple):
    """A pack. A retired one takes no chunk rows any more; the file of a dropped one is deleted, or soon will be.

    `size_bytes` is None if the size was not noted yet, or if the pack grows or once grew: then the disk knows it.
    """

    pack_number: int
    name: str
    retired_ms: int | None
    dropped_epoch: int | None
    size_bytes: int | None


COLUMNS = ", ".join(PackRow._fields)
INSERT = (
    "INSERT INTO pack (name, open, created_ms, size_bytes)"
    " SELECT :name, :open, :now_ms, :size_bytes FROM collection WHERE epoch = :epoch"
)
EMPTY = "NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.pack_number = pack.pack_number)"


def number_for(
    transaction: Transaction, name: str, *, epoch: int, now_ms: int, size_bytes: int | None = None
) -> int | None:
    """Return the number of the pack for a chunk row, whose bytes were written to it in `epoch` or later.

    A new pack is recorded with its final size, or as open to further writes if `size_bytes` is None. Return None if the
    pack is given up, or may be: a pack without a row only counts as new while the epoch is the one in which the bytes
    were written, since rows are deleted between epochs.
    """
    row = transaction.row("SELECT pack_number, retired_ms FROM pack WHERE name = :name", name=name)
    if row is not None:
        return None if row[1] is not None else int(row[0])
    row = transaction.row(f"{INSERT} RETURNING pack_number", **_inserted(name, epoch, now_ms, size_bytes))
    return None if row is None else int(row[0])


def insert_statement(name: str, *, epoch: int, now_ms: int, size_bytes: int | None) -> Statement:
    """Return the statement that records a new pack as `number_for` does."""
    values = _inserted(name, epoch, now_ms, size_bytes)
    return Statement(f"{INSERT} ON CONFLICT (name) DO NOTHING", values, may_change_none=True)


def _inserted(name: str, epoch: int, now_ms: int, size_bytes: int | None) -> dict[str, object]:
    is_open = int(size_bytes is None)
    return {"name": name, "open": is_open, "now_ms": now_ms, "size_bytes": size_bytes, "epoch": epoch}


def open_packs(transaction: Transaction) -> list[str]:
    """Return the packs that were last known to be written to, by any process."""
    return [row[0] for row in transaction.rows("SELECT name FROM pack WHERE open = 1 ORDER BY pack_number")]


def close(transaction: Transaction, name: str) -> None:
    """Note that nothing will be appended to the pack any more."""
    transaction.run("UPDATE pack SET open = 0 WHERE name = :name", name=name)


def close_all(transaction: Transaction, names: Sequence[str]) -> None:
    """As `close`, for several packs."""
    for name in names:
        close(transaction, name)


def noted_bytes(transaction: Transaction) -> int:
    """Return the total size of all packs whose size is noted and that have a file."""
    row = transaction.row("SELECT coalesce(sum(size_bytes), 0) FROM pack WHERE dropped_epoch IS NULL")
    return int(row[0]) if row else 0


def set_sizes(transaction: Transaction, sizes: Mapping[int, int]) -> None:
    """Note the sizes of packs that do not grow, by their numbers."""
    transaction.run_all(
        [
            Statement(
                "UPDATE pack SET size_bytes = :size_bytes WHERE pack_number = :pack_number"
                " AND (size_bytes IS NULL OR size_bytes <> :size_bytes)",
                {"pack_number": pack_number, "size_bytes": size_bytes},
            )
            for pack_number, size_bytes in sizes.items()
        ]
    )


def not_retired(transaction: Transaction, *, after: int, limit: int) -> list[PackRow]:
    """Return packs that are not retired, open ones included, by number after `after`."""
    return _page(transaction, "retired_ms IS NULL", after, limit)


def retired(transaction: Transaction, *, after: int, limit: int) -> list[PackRow]:
    """Return retired packs, dropped ones included, by number after `after`."""
    return _page(transaction, "retired_ms IS NOT NULL", after, limit)


def _page(transaction: Transaction, condition: str, after: int, limit: int) -> list[PackRow]:
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM pack WHERE pack_number > :after AND {condition} ORDER BY pack_number LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [PackRow(*row) for row in rows]


def is_closed(transaction: Transaction, pack_number: int) -> bool:
    """Whether the pack exists, is not retired, and is not written to any more."""
    row = transaction.row(
        "SELECT 1 FROM pack WHERE pack_number = :pack_number AND open = 0 AND retired_ms IS NULL",
        pack_number=pack_number,
    )
    return row is not None


def empty(transaction: Transaction, *, after: int, limit: int) -> list[int]:
    """Return closed packs that are not retired and have no chunk rows, by number after `after`."""
    rows = transaction.rows(
        f"SELECT pack_number FROM pack WHERE pack_number > :after AND open = 0 AND retired_ms IS NULL AND {EMPTY}"
        " ORDER BY pack_number LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def retire(transaction: Transaction, pack_number: int, *, now_ms: int) -> bool:
    """Retire a closed pack that has no chunk rows: it takes none any more. Return whether it did."""
    retired = transaction.run(
        "UPDATE pack SET retired_ms = :now_ms"
        f" WHERE pack_number = :pack_number AND open = 0 AND retired_ms IS NULL AND {EMPTY}",
        pack_number=pack_number,
        now_ms=now_ms,
    )
    return retired == 1


def drop(transaction: Transaction, pack_number: int, *, epoch: int, before_ms: int) -> bool:
    """Decide that the file of a pack is deleted, if it was retired at `before_ms` or earlier. Return whether it did."""
    dropped = transaction.run(
        "UPDATE pack SET dropped_epoch = :epoch WHERE pack_number = :pack_number"
        f" AND retired_ms <= :before_ms AND dropped_epoch IS NULL AND {EMPTY}",
        pack_number=pack_number,
        epoch=epoch,
        before_ms=before_ms,
    )
    return dropped == 1


class VerifiedPack(NamedTuple):
    """A pack, and when it was last verified; 0 if never."""

    pack_number: int
    name: str
    open: bool
    verified_ms: int


def find(transaction: Transaction, name: str) -> PackRow | None:
    """Return the pack of this name."""
    row = transaction.row(f"SELECT {COLUMNS} FROM pack WHERE name = :name", name=name)
    return PackRow(*row) if row else None


def count(transaction: Transaction, *, verified_before_ms: int) -> int:
    """Return how many packs are not retired and were last verified before a time."""
    row = transaction.row(
        "SELECT count(*) FROM pack WHERE retired_ms IS NULL AND verified_ms < :verified_before_ms",
        verified_before_ms=verified_before_ms,
    )
    return int(row[0]) if row else 0


def least_verified(
    transaction: Transaction, *, after: tuple[int, int], verified_before_ms: int, limit: int
) -> list[VerifiedPack]:
    """Return packs that are not retired and were last verified before a time, by that time and their number."""
    rows = transaction.rows(
        "SELECT pack_number, name, open, verified_ms FROM pack WHERE retired_ms IS NULL"
        " AND (verified_ms, pack_number) > (:after_ms, :after_number) AND verified_ms < :verified_before_ms"
        " ORDER BY verified_ms, pack_number LIMIT :limit",
        after_ms=after[0],
        after_number=after[1],
        verified_before_ms=verified_before_ms,
        limit=limit,
    )
    return [VerifiedPack(row[0], row[1], bool(row[2]), row[3]) for row in rows]


def verified_ms(transaction: Transaction, pack_number: int) -> int | None:
    """Return when a pack was last verified; None if it does not exist."""
    row = transaction.row("SELECT verified_ms FROM pack WHERE pack_number = :pack_number", pack_number=pack_number)
    return int(row[0]) if row else None


def set_verified(transaction: Transaction, pack_number: int, *, now_ms: int) -> None:
    """Note that a whole pack was read and found sound, if it is not written to any more."""
    transaction.run(
        "UPDATE pack SET verified_ms = :now_ms WHERE pack_number = :pack_number AND open = 0",
        pack_number=pack_number,
        now_ms=now_ms,
    )


def forget(transaction: Transaction, pack_number: int, *, epoch: int) -> None:
    """Delete the row of a pack that was dropped before `epoch` and whose file is gone."""
    transaction.run(
        "DELETE FROM pack WHERE pack_number = :pack_number AND dropped_epoch < :epoch",
        pack_number=pack_number,
        epoch=epoch,
    )


def put_back(transaction: Transaction, name: str, *, now_ms: int, size_bytes: int | None) -> int:
    """Return the number of a closed pack; insert its row if necessary. For rebuilding the catalog."""
    transaction.run(
        "INSERT INTO pack (name, open, created_ms, size_bytes) VALUES (:name, 0, :now_ms, :size_bytes)"
        " ON CONFLICT (name) DO NOTHING",
        name=name,
        now_ms=now_ms,
        size_bytes=size_bytes,
    )
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :name", name=name)
    assert row is not None
    return int(row[0])

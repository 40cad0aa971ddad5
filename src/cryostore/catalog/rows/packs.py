"""Rows of packs: which are still written to, and how an empty one is deleted.

The rules: `maintenance.garbage_collection.collect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction


class PackRow(NamedTuple):
    """A pack. A retired one takes no rows any more; a dropped one has no file any more, or soon not.

    `size_bytes` is None if nobody has noted it yet, or the pack is one that grows, or did: then the disk knows.
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
    """The number of the pack for a row of bytes that were written to it in `epoch` or later.

    A pack met for the first time is recorded with the size it has for good, or as one to which more may be written if
    `size_bytes` is left out. None if the pack is given up, or may have been: one without a row counts as new only while
    the epoch is the one the bytes were written in, since rows are forgotten between epochs.
    """
    row = transaction.row("SELECT pack_number, retired_ms FROM pack WHERE name = :name", name=name)
    if row is not None:
        return None if row[1] is not None else int(row[0])
    row = transaction.row(f"{INSERT} RETURNING pack_number", **_inserted(name, epoch, now_ms, size_bytes))
    return None if row is None else int(row[0])


def insert_statement(name: str, *, epoch: int, now_ms: int, size_bytes: int | None) -> Statement:
    """The statement that records a pack as `number_for` does, if it is met for the first time."""
    values = _inserted(name, epoch, now_ms, size_bytes)
    return Statement(f"{INSERT} ON CONFLICT (name) DO NOTHING", values, may_change_none=True)


def _inserted(name: str, epoch: int, now_ms: int, size_bytes: int | None) -> dict[str, object]:
    is_open = int(size_bytes is None)
    return {"name": name, "open": is_open, "now_ms": now_ms, "size_bytes": size_bytes, "epoch": epoch}


def open_packs(transaction: Transaction) -> list[str]:
    """The packs that were last known to be written to, by whatever process."""
    return [row[0] for row in transaction.rows("SELECT name FROM pack WHERE open = 1 ORDER BY pack_number")]


def close(transaction: Transaction, name: str) -> None:
    """Record that nothing will be appended to the pack any more."""
    transaction.run("UPDATE pack SET open = 0 WHERE name = :name", name=name)


def close_all(transaction: Transaction, names: Sequence[str]) -> None:
    """As `close`, for several packs."""
    for name in names:
        close(transaction, name)


def noted_bytes(transaction: Transaction) -> int:
    """How large all packs are together whose size is noted and whose file is not given up."""
    row = transaction.row("SELECT coalesce(sum(size_bytes), 0) FROM pack WHERE dropped_epoch IS NULL")
    return int(row[0]) if row else 0


def set_sizes(transaction: Transaction, sizes: Mapping[int, int]) -> None:
    """Record how large packs are that do not grow, by their numbers."""
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
    """Packs that are not retired, open ones too, by number after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM pack WHERE pack_number > :after AND retired_ms IS NULL ORDER BY pack_number"
        " LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [PackRow(*row) for row in rows]


def is_closed(transaction: Transaction, pack_number: int) -> bool:
    """Whether the pack is there, not retired, and not written to any more."""
    row = transaction.row(
        "SELECT 1 FROM pack WHERE pack_number = :pack_number AND open = 0 AND retired_ms IS NULL",
        pack_number=pack_number,
    )
    return row is not None


def empty(transaction: Transaction, *, after: int, limit: int) -> list[int]:
    """Closed packs, not retired yet, without a row that points into them, by number after `after`."""
    rows = transaction.rows(
        f"SELECT pack_number FROM pack WHERE pack_number > :after AND open = 0 AND retired_ms IS NULL AND {EMPTY}"
        " ORDER BY pack_number LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def retire(transaction: Transaction, pack_number: int, *, now_ms: int) -> bool:
    """Let a closed pack take no more rows, if it has none; answers whether it did."""
    retired = transaction.run(
        "UPDATE pack SET retired_ms = :now_ms"
        f" WHERE pack_number = :pack_number AND open = 0 AND retired_ms IS NULL AND {EMPTY}",
        pack_number=pack_number,
        now_ms=now_ms,
    )
    return retired == 1


def retired(transaction: Transaction, *, after: int, limit: int) -> list[PackRow]:
    """Retired packs, dropped ones among them, by number after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM pack WHERE pack_number > :after AND retired_ms IS NOT NULL ORDER BY pack_number"
        " LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [PackRow(*row) for row in rows]


def drop(transaction: Transaction, pack_number: int, *, epoch: int, before_ms: int) -> bool:
    """Decide that a pack's file goes: retired at `before_ms` or earlier, and still without rows; answers whether so."""
    dropped = transaction.run(
        "UPDATE pack SET dropped_epoch = :epoch WHERE pack_number = :pack_number"
        f" AND retired_ms <= :before_ms AND dropped_epoch IS NULL AND {EMPTY}",
        pack_number=pack_number,
        epoch=epoch,
        before_ms=before_ms,
    )
    return dropped == 1


class VerifiedPack(NamedTuple):
    """A pack, and when it was last read and found right; 0: never."""

    pack_number: int
    name: str
    open: bool
    verified_ms: int


def find(transaction: Transaction, name: str) -> PackRow | None:
    """The pack of this name."""
    row = transaction.row(f"SELECT {COLUMNS} FROM pack WHERE name = :name", name=name)
    return PackRow(*row) if row else None


def count(transaction: Transaction, *, verified_before_ms: int) -> int:
    """How many packs are not retired and were last verified before then."""
    row = transaction.row(
        "SELECT count(*) FROM pack WHERE retired_ms IS NULL AND verified_ms < :verified_before_ms",
        verified_before_ms=verified_before_ms,
    )
    return int(row[0]) if row else 0


def least_verified(
    transaction: Transaction, *, after: tuple[int, int], verified_before_ms: int, limit: int
) -> list[VerifiedPack]:
    """Packs that are not retired and were last verified before then, in the order of that and of their numbers."""
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
    """When a pack was last verified; None if there is none of this number."""
    row = transaction.row("SELECT verified_ms FROM pack WHERE pack_number = :pack_number", pack_number=pack_number)
    return int(row[0]) if row else None


def set_verified(transaction: Transaction, pack_number: int, *, now_ms: int) -> None:
    """Record that all of a pack was read and found right, if nobody writes to it any more."""
    transaction.run(
        "UPDATE pack SET verified_ms = :now_ms WHERE pack_number = :pack_number AND open = 0",
        pack_number=pack_number,
        now_ms=now_ms,
    )


def forget(transaction: Transaction, pack_number: int, *, epoch: int) -> None:
    """Remove the row of a pack that was dropped before `epoch` and whose file is gone."""
    transaction.run(
        "DELETE FROM pack WHERE pack_number = :pack_number AND dropped_epoch < :epoch",
        pack_number=pack_number,
        epoch=epoch,
    )


def put_back(transaction: Transaction, name: str, *, now_ms: int, size_bytes: int | None) -> int:
    """The number of a closed pack that exists, added if need be; for rebuilding the catalog."""
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

"""Packs in the catalog: which are still written to, and how one that is empty goes. The rules: `maintenance.gc`."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction


class PackRow(NamedTuple):
    """A pack. A retired one takes no rows any more; a dropped one has no file any more, or soon not."""

    pack_number: int
    name: str
    retired_ms: int | None
    dropped_epoch: int | None


COLUMNS = ", ".join(PackRow._fields)
EMPTY = "NOT EXISTS (SELECT 1 FROM chunk WHERE chunk.pack_number = pack.pack_number)"


def number_for(transaction: Transaction, name: str, *, epoch: int, now_ms: int, is_open: bool = True) -> int | None:
    """The number of the pack for a row of bytes that were written to it in `epoch` or later.

    A pack met for the first time is recorded, `is_open` if more may be written to it. None if the pack is given up, or
    may have been: one without a row counts as new only while the epoch is the one the bytes were written in, since rows
    are forgotten between epochs.
    """
    row = transaction.row("SELECT pack_number, retired_ms FROM pack WHERE name = :name", name=name)
    if row is not None:
        return None if row[1] is not None else int(row[0])
    row = transaction.row(
        "INSERT INTO pack (name, open, created_ms) SELECT :name, :open, :now_ms FROM collection WHERE epoch = :epoch"
        " RETURNING pack_number",
        name=name,
        open=int(is_open),
        now_ms=now_ms,
        epoch=epoch,
    )
    return None if row is None else int(row[0])


def insertion(name: str, *, epoch: int, now_ms: int, is_open: bool) -> Statement:
    """The statement that records a pack as `number_for` does, if it is met for the first time."""
    return Statement(
        "INSERT INTO pack (name, open, created_ms) SELECT :name, :open, :now_ms FROM collection WHERE epoch = :epoch"
        " ON CONFLICT (name) DO NOTHING",
        {"name": name, "open": int(is_open), "now_ms": now_ms, "epoch": epoch},
    )


def open_packs(transaction: Transaction) -> list[str]:
    """The packs that were last known to be written to, by whatever process."""
    return [row[0] for row in transaction.rows("SELECT name FROM pack WHERE open = 1 ORDER BY pack_number")]


def close(transaction: Transaction, name: str) -> None:
    """Record that nothing will be appended to the pack any more."""
    transaction.run("UPDATE pack SET open = 0 WHERE name = :name", name=name)


def standing(transaction: Transaction, *, after: int, limit: int) -> list[PackRow]:
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


def empty(transaction: Transaction, limit: int) -> list[int]:
    """Closed packs, not retired yet, without a row that points into them."""
    rows = transaction.rows(
        f"SELECT pack_number FROM pack WHERE open = 0 AND retired_ms IS NULL AND {EMPTY} LIMIT :limit", limit=limit
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


def put_back(transaction: Transaction, name: str, *, now_ms: int) -> int:
    """The number of a closed pack that exists, added if need be; for rebuilding the catalog."""
    transaction.run(
        "INSERT INTO pack (name, open, created_ms) VALUES (:name, 0, :now_ms) ON CONFLICT (name) DO NOTHING",
        name=name,
        now_ms=now_ms,
    )
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :name", name=name)
    assert row is not None
    return int(row[0])

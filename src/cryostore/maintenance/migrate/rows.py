"""Copy of the rows of one catalog to another: reads both side by side, and corrects the differences.

So the copy may be interrupted anywhere and repeated without remembering how far it was; changes of the source in
between are found too. At the end the rows of both are counted and digested, and must be equal.

First the rows that the source does not have are removed, referring rows before the rows they refer to. Then rows are
added, in the opposite order. References within a table are cleared first if they change. No transaction changes more
than `ROWS_PER_BATCH` rows. Rows that say where a catalog is and whether it may be opened are not part of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

import msgspec

from cryostore.catalog import tables
from cryostore.catalog.database import Row, Transaction
from cryostore.catalog.tables import TABLES, CountedTo, Table
from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.migrate.cutover import TOKEN_BEFORE
from cryostore.maintenance.migrate.side import Side, StageProgress
from cryostore.service.opening.shared_store import IDENTITY
from cryostore.service.store_keyring import TOKEN_SECRET

ROWS_PER_PAGE = 500
ROWS_PER_BATCH = 500
ROWS_PER_STEP = 20_000
ROWS_COUNTED = 200_000
"""The number of rows that one statement counts."""
OF_THE_PLACE = frozenset({TOKEN_SECRET, TOKEN_BEFORE, IDENTITY})
"""The secrets that say where a catalog is and whether it may be opened. `cutover` sets them."""


class TableDigest(NamedTuple):
    """The number of rows of a table, and the digest of its rows in the order of their keys."""

    rows: int
    digest: str


def copy_rows(source: Side, target: Side, counted: dict[str, int]) -> Iterator[StageProgress]:
    """Make the rows of the target equal to those of the source, step by step.

    Fills `counted` with the last number that the source has given out, by table: the target continues from there.
    """
    total, before = count_rows(source), 0
    yield StageProgress("rows", before, total)
    for table in reversed(TABLES):
        yield from _remove_strays(source, target, table)
    for table in TABLES:
        done = 0
        for done in _copy_table(source, target, table):
            yield StageProgress("rows", before + done, total)
        before += done
        if table.number is not None:
            counted[table.name] = _counted_to(source, table)
            target.write(partial(tables.count_from, table=table, number=counted[table.name]))


def verify_rows(
    source: Side, target: Side, counted: dict[str, int], found: dict[str, TableDigest]
) -> Iterator[StageProgress]:
    """Count and digest all rows of both, step by step, into `found`. Raises DamagedDataError if they differ."""
    total, done = 2 * count_rows(source), 0
    yield StageProgress("verify rows", done, total)
    for table in TABLES:
        sides = []
        for side in (source, target):
            digest, count = sha256(), 0
            for row in _rows(side, table):
                digest.update(msgspec.msgpack.encode(row))
                count, done = count + 1, done + 1
                if not done % ROWS_PER_STEP:
                    yield StageProgress("verify rows", done, total)
            sides.append(TableDigest(count, digest.hexdigest()))
        if sides[0] != sides[1]:
            raise DamagedDataError(
                f"table {table.name} is not the same: {sides[0].rows} rows in {source.name},"
                f" {sides[1].rows} in {target.name}",
                hint="make sure that nothing writes to either of them, and repeat the command",
            )
        if table.number is not None and _counted_to(target, table) < counted[table.name]:
            raise DamagedDataError(f"{target.name} would reuse numbers of table {table.name}")
        found[table.name] = sides[0]
    yield StageProgress("verify rows", total, total)


def count_rows(side: Side, some: Sequence[Table] = TABLES) -> int:
    """Count the rows of tables, in steps that are short for any database."""
    total = 0
    for table in some:
        after: Row | None = None
        while key := side.read(partial(tables.step, table=table, after=after, rows=ROWS_COUNTED)):
            total, after = total + ROWS_COUNTED, key
        total += side.read(partial(tables.count_behind, table=table, after=after))
    return total


def _rows(side: Side, table: Table) -> Iterator[Row]:
    """Yield all rows of the store in the order of their keys, read page by page."""
    after: Row | None = None
    while found := side.read(partial(tables.page, table=table, after=after, limit=ROWS_PER_PAGE)):
        yield from (row for row in found if table.name != "secret" or row[0] not in OF_THE_PLACE)
        if len(found) < ROWS_PER_PAGE:
            return
        after = table.key_of(found[-1])


def _pairs(source: Side, target: Side, table: Table) -> Iterator[tuple[Row | None, Row | None]]:
    """Yield pairs of rows with the same key, in the order of keys; None where a side has no such row."""
    theirs = _rows(target, table)
    there = next(theirs, None)
    for row in _rows(source, table):
        key = table.key_of(row)
        while there is not None and table.key_of(there) < key:
            yield None, there
            there = next(theirs, None)
        if there is not None and table.key_of(there) == key:
            yield row, there
            there = next(theirs, None)
        else:
            yield row, None
    while there is not None:
        yield None, there
        there = next(theirs, None)


def _remove_strays(source: Side, target: Side, table: Table) -> Iterator[StageProgress]:
    """Remove the rows that the source does not have."""
    if not target.read(partial(tables.page, table=table, after=None, limit=1)):
        return
    if table.link is not None:
        changed = (there for here, there in _pairs(source, target, table) if there is not None and here != there)
        yield from _each(target, table, changed, tables.unlink)
    strays = (there for here, there in _pairs(source, target, table) if here is None and there is not None)
    yield from _each(target, table, strays, tables.delete)


def _each(
    target: Side, table: Table, some: Iterator[Row], change: Callable[[Transaction, Table, Row], None]
) -> Iterator[StageProgress]:
    """Change rows of the target, a batch at a time."""

    def work(transaction: Transaction) -> None:
        for row in batch:
            change(transaction, table, table.key_of(row))

    while batch := list(islice(some, ROWS_PER_BATCH)):
        target.write(work)
        yield StageProgress("rows", 0)


def _copy_table(source: Side, target: Side, table: Table) -> Iterator[int]:
    """Add missing rows and replace different ones. Yields the number of rows compared so far."""
    done = 0
    missing: list[Row] = []
    different: list[Row] = []
    for here, there in _pairs(source, target, table):
        if here is None:
            continue
        done += 1
        if there is None:
            missing.append(here)
        elif here != there:
            different.append(here)
        if len(missing) + len(different) >= ROWS_PER_BATCH:
            target.write(partial(_put, table=table, missing=missing, different=different))
            missing, different = [], []
            yield done
        elif not done % ROWS_PER_STEP:
            yield done
    if missing or different:
        target.write(partial(_put, table=table, missing=missing, different=different))
    yield done


def _put(transaction: Transaction, table: Table, missing: list[Row], different: list[Row]) -> None:
    tables.insert(transaction, table, missing)
    for row in different:
        tables.replace(transaction, table, row)


def _counted_to(side: Side, table: Table) -> int:
    try:
        side.write(partial(tables.count_to, table=table))
    except CountedTo as answer:
        return answer.number
    raise AssertionError

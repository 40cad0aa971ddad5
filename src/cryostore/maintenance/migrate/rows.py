"""Copying the rows of one catalog into another: both are read side by side, and what differs is put right.

So it may be broken off anywhere and begun again, and nobody need remember how far it was; what the source has changed
in between is found as well. In the end the rows of both are counted and digested, and must be the same.

The rules: rows that the source does not have go first, referring ones before what they refer to; then rows come, the
other way round. What rows of one table refer to in it is undone before, where it is to change. No transaction has more
than `ROWS_PER_BATCH` rows. Rows by which a catalog says where it is, and whether it may be opened, are no rows of the
store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

import msgspec

from cryostore.catalog import sequences, tables
from cryostore.catalog.database import Row, Transaction
from cryostore.catalog.sequences import CountedTo
from cryostore.catalog.tables import TABLES, Table
from cryostore.core.errors import DamagedDataError
from cryostore.maintenance.migrate.move_mark import TOKEN_BEFORE
from cryostore.maintenance.migrate.side import Side, Step
from cryostore.service.opening.identity import IDENTITY
from cryostore.service.store_keyring import TOKEN_SECRET

ROWS_PER_PAGE = 500
ROWS_PER_BATCH = 500
ROWS_PER_STEP = 20_000
ROWS_COUNTED = 200_000
"""So many rows are counted by one statement."""
OF_THE_PLACE = frozenset({TOKEN_SECRET, TOKEN_BEFORE, IDENTITY})
"""The secrets that say where a catalog is, and whether it may be opened. They are dealt with by `migrate`."""


class TableDigest(NamedTuple):
    """How many rows a table has, and the digest of all of them in the order of their keys."""

    rows: int
    digest: str


def copy_rows(source: Side, target: Side, counted: dict[str, int]) -> Iterator[Step]:
    """Make the rows of the target those of the source, step by step.

    `counted` gets how far the source has counted, by table: the target counts on from there.
    """
    total, before = count_rows(source), 0
    yield Step("rows", before, total)
    for table in reversed(TABLES):
        yield from _remove_strays(source, target, table)
    for table in TABLES:
        done = 0
        for done in _bring(source, target, table):
            yield Step("rows", before + done, total)
        before += done
        if table.number is not None:
            counted[table.name] = _counted_to(source, table)
            target.write(partial(sequences.count_from, table=table, number=counted[table.name]))


def verify_rows(source: Side, target: Side, counted: dict[str, int], found: dict[str, TableDigest]) -> Iterator[Step]:
    """Count and digest all rows of both, step by step, into `found`. Raises DamagedDataError where they differ."""
    total, done = 2 * count_rows(source), 0
    yield Step("verify rows", done, total)
    for table in TABLES:
        sides = []
        for side in (source, target):
            digest, count = sha256(), 0
            for row in _rows(side, table):
                digest.update(msgspec.msgpack.encode(row))
                count, done = count + 1, done + 1
                if not done % ROWS_PER_STEP:
                    yield Step("verify rows", done, total)
            sides.append(TableDigest(count, digest.hexdigest()))
        if sides[0] != sides[1]:
            raise DamagedDataError(
                f"table {table.name} is not the same: {sides[0].rows} rows in {source.name},"
                f" {sides[1].rows} in {target.name}",
                hint="see that nobody writes to either of them, and repeat the command",
            )
        if table.number is not None and _counted_to(target, table) < counted[table.name]:
            raise DamagedDataError(f"{target.name} would give numbers of {table.name} out again")
        found[table.name] = sides[0]
    yield Step("verify rows", total, total)


def count_rows(side: Side, some: Sequence[Table] = TABLES) -> int:
    """How many rows tables have, counted in steps that no database finds long."""
    total = 0
    for table in some:
        after: Row | None = None
        while key := side.read(partial(tables.step, table=table, after=after, rows=ROWS_COUNTED)):
            total, after = total + ROWS_COUNTED, key
        total += side.read(partial(tables.count_behind, table=table, after=after))
    return total


def _rows(side: Side, table: Table) -> Iterator[Row]:
    """All rows of the store, in the order of their keys, read page by page."""
    after: Row | None = None
    while found := side.read(partial(tables.page, table=table, after=after, limit=ROWS_PER_PAGE)):
        yield from (row for row in found if table.name != "secret" or row[0] not in OF_THE_PLACE)
        if len(found) < ROWS_PER_PAGE:
            return
        after = table.key_of(found[-1])


def _pairs(source: Side, target: Side, table: Table) -> Iterator[tuple[Row | None, Row | None]]:
    """The rows of both, those with the same key together, in the order of their keys."""
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


def _remove_strays(source: Side, target: Side, table: Table) -> Iterator[Step]:
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
) -> Iterator[Step]:
    """Change rows of the target, a batch at a time."""

    def work(transaction: Transaction) -> None:
        for row in batch:
            change(transaction, table, table.key_of(row))

    while batch := list(islice(some, ROWS_PER_BATCH)):
        target.write(work)
        yield Step("rows", 0)


def _bring(source: Side, target: Side, table: Table) -> Iterator[int]:
    """Add the rows that are missing and replace those that differ; answers again and again how many were looked at."""
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
        side.write(partial(sequences.count_to, table=table))
    except CountedTo as answer:
        return answer.number
    raise AssertionError

"""What the database says of itself: the one place with statements of a single engine, SQLite.

Another engine brings its own words here; all it must answer is a list that is empty if nothing is wrong.
"""

from __future__ import annotations

from cryostore.catalog.database import Transaction

PROBLEMS_MAX = 100


def problems(transaction: Transaction) -> list[str]:
    """What is wrong with the pages and indexes of the database, and which rows refer to rows that are not there.

    Reads all of it, in the snapshot of one transaction. Raises DamagedDataError if it cannot even be read.
    """
    found = [row[0] for row in transaction.rows(f"PRAGMA integrity_check({PROBLEMS_MAX})")]
    if found == ["ok"]:
        found = []
    broken = transaction.rows("PRAGMA foreign_key_check")
    return found + [f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in broken[:PROBLEMS_MAX]]

"""What the database says of itself. Each engine has words of its own for that: see its `problems`."""

from __future__ import annotations

from cryostore.catalog.database import Transaction

PROBLEMS_MAX = 100


def problems(transaction: Transaction) -> list[str]:
    """What is wrong with the pages and indexes of the database, and which rows refer to rows that are not there.

    Reads all of it, in the snapshot of one transaction. Raises DamagedDataError if it cannot even be read.
    """
    return transaction.problems(PROBLEMS_MAX)

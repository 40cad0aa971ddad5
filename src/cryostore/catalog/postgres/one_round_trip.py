"""Batches of which all statements are known beforehand: BEGIN, the statements and COMMIT, in one round trip.

The server itself sees to it that nothing is committed that is not as expected: a statement that does not change one row
fails, and what was sent behind it, COMMIT among it, is passed over. Which of them it was is found out by running the
batch again, step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from cryostore.catalog.database import FixedStatements, Statement
from cryostore.catalog.group_commit import Pending
from cryostore.catalog.postgres.session import Session
from cryostore.catalog.postgres.values import translated


def statements_of(batch: Sequence[Pending]) -> list[Statement] | None:
    """The statements of all units of work in their order; None if one of them is not known beforehand."""
    units = [pending.work for pending in batch if isinstance(pending.work, FixedStatements)]
    return [statement for unit in units for statement in unit.statements] if len(units) == len(batch) else None


def commit_at_once(session: Session, begin: str, statements: Sequence[Statement]) -> None:
    """Begin, run all of the statements, and commit. `begin` are commands with `; ` between them.

    Raises psycopg.Error, and DivisionByZero among them if a statement changed no row that was to change one; then
    nothing has happened, unless the connection was lost: then it is to be asked what has.
    """
    with session.pipeline():
        for command in begin.split("; "):
            session.say(command)
        for statement in statements:
            text = statement.text if statement.may_change_none else _guarded(statement.text)
            session.cursor(binary=True).execute(translated(text), statement.values)
        session.say("COMMIT")


@functools.lru_cache(maxsize=100)
def _guarded(text: str) -> str:
    """A statement that fails if it does not change just one row."""
    return f"WITH changed AS ({text} RETURNING 1) SELECT 1 / CAST(count(*) = 1 AS INTEGER) FROM changed"

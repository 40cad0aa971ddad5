"""Batches committed in one round trip: BEGIN, all statements and COMMIT in one message.

For batches whose statements are all known beforehand. The server itself makes sure that nothing unexpected is
committed: a statement that does not change exactly one row fails, and the server skips what follows it, COMMIT
included. To find out which statement it was, the engine runs the batch again, step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from cryostore.catalog.database import FixedStatements, Statement
from cryostore.catalog.group_commit import Pending
from cryostore.catalog.postgres.session import Session
from cryostore.catalog.postgres.values import translated


def statements_of(batch: Sequence[Pending]) -> list[Statement] | None:
    """Return the statements of all units of work in order; None if one of them is not known beforehand."""
    units = [pending.work for pending in batch if isinstance(pending.work, FixedStatements)]
    return [statement for unit in units for statement in unit.statements] if len(units) == len(batch) else None


def commit_at_once(session: Session, begin: str, statements: Sequence[Statement]) -> None:
    """Begin, run all statements, and commit. `begin` are commands, separated by `; `.

    Raises psycopg.Error; that is DivisionByZero if a statement did not change exactly one row. Then nothing has
    happened, unless the connection was lost: then the engine must look up whether the commit happened.
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
    """Return a statement that fails unless it changes exactly one row."""
    return f"WITH changed AS ({text} RETURNING 1) SELECT 1 / CAST(count(*) = 1 AS INTEGER) FROM changed"

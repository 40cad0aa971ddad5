"""Writes stated as steps: statements, each with the consequence if it changes no row.

One statement of a write serves both ways to run it. An engine far away gets all statements in one message; where one of
them changes no row, and with any other engine, they run step by step, and the consequences apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Statement, Transaction


class Step(NamedTuple):
    """A statement that normally changes one row.

    `if_unchanged` runs in the same transaction if it changes none: it raises the error for the caller, or returns
    whether the steps behind it are still to run.
    """

    statement: Statement
    if_unchanged: Callable[[Transaction], bool]


def run_steps(transaction: Transaction, steps: Sequence[Step]) -> None:
    """Run steps one by one. Raises what a consequence raises."""
    for statement, if_unchanged in steps:
        if transaction.run(statement.text, **statement.values) != 1 and not if_unchanged(transaction):
            return


class SteppedWrite:
    """A unit of work that consists of steps. `build` creates them again for each attempt, since they carry the time."""

    def __init__(self, build: Callable[[], Sequence[Step]]) -> None:
        self._build = build

    def statements(self) -> list[Statement]:
        """The statements, for an engine that runs all of them in one message."""
        return [step.statement for step in self._build()]

    def __call__(self, transaction: Transaction) -> None:
        """Run the steps one by one."""
        run_steps(transaction, self._build())

"""Writes stated as steps: the consequences of a statement that changes no row, and both ways to run the same steps."""

from __future__ import annotations

import pytest

from cryostore.catalog.database import FixedStatements, Statement, UnexpectedRowCountError
from cryostore.service.operations.steps import Step, SteppedWrite, run_steps


class Rows:
    """A transaction whose statements are names; each changes one row, except those in `unchanged`."""

    def __init__(self, *unchanged):
        self.unchanged, self.ran = unchanged, []

    def run(self, statement, **_values):
        self.ran.append(statement)
        return int(statement not in self.unchanged)

    def run_all(self, statements):
        return [self.run(statement.text) for statement in statements]


class RefusedError(Exception):
    """The consequence of a step."""


def refuse(_transaction):
    raise RefusedError


def step(name, consequence=refuse):
    return Step(Statement(name, {}), consequence)


def test_steps_run_in_their_order():
    rows = Rows()
    run_steps(rows, [step("first"), step("second")])
    assert rows.ran == ["first", "second"]


def test_a_step_that_changes_no_row_may_raise():
    rows = Rows("first")
    with pytest.raises(RefusedError):
        run_steps(rows, [step("first"), step("second")])
    assert rows.ran == ["first"]


@pytest.mark.parametrize(("goes_on", "ran"), [(True, ["first", "second"]), (False, ["first"])])
def test_a_step_that_changes_no_row_decides_about_the_steps_behind_it(goes_on, ran):
    rows = Rows("first")
    run_steps(rows, [step("first", lambda _: goes_on), step("second")])
    assert rows.ran == ran


def test_both_ways_run_the_same_statements():
    write = SteppedWrite(lambda: [step("first"), step("second")])
    one_by_one, in_one_message = Rows(), Rows()
    write(one_by_one)
    FixedStatements(write.statements())(in_one_message)
    assert one_by_one.ran == in_one_message.ran == ["first", "second"]
    with pytest.raises(UnexpectedRowCountError):
        FixedStatements(write.statements())(Rows("second"))


def test_each_attempt_builds_its_steps():
    """They carry the time, which must be that of the attempt."""
    times = iter(range(10))
    write = SteppedWrite(lambda: [step(f"at {next(times)}")])
    rows = Rows()
    write(rows)
    write(rows)
    assert rows.ran == ["at 0", "at 1"]

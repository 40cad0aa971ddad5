"""The page of served operations."""

from __future__ import annotations

import pytest

from cryostore.model import OPERATIONS
from cryostore.wire.reference import coverage

PAGE = coverage.render()


@pytest.mark.parametrize("declaration", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_a_row(declaration):
    (line,) = [line for line in PAGE.splitlines() if f"`{declaration.method} {declaration.path}`" in line]
    assert declaration.name in line
    assert declaration.action in line
    assert ("(extension)" in line) == declaration.extension


def test_no_other_operation_has_a_row():
    assert sum(line.startswith("| **") for line in PAGE.splitlines()) == len(OPERATIONS)


def test_required_members_are_marked():
    (line,) = [line for line in PAGE.splitlines() if "**PutChunk**" in line]
    assert "query: length*, checksum*, checksum-algorithm*<br>raw body: Data" in line

"""Each operation has one noun: in the model, in its behaviour and in the rows of the catalog."""

from __future__ import annotations

import pytest

from cryostore.catalog import rows
from cryostore.model import OPERATIONS
from cryostore.service import HANDLERS
from support import project

COVERS = ("service/service.py",)

OPERATION_ROOM = "cryostore.service.operations."
ROWS_ROOM = f"{rows.__name__}."


def noun_of(name):
    """The module of the model that declares an operation."""
    return OPERATIONS[name].input.__module__.removeprefix("cryostore.model.")


def test_every_operation_has_a_handler_and_no_other_has():
    assert {operation.__name__ for operation in HANDLERS} == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_declaration_and_handler_of_an_operation_have_the_same_noun(name):
    """The handler is in the module or the folder of that name."""
    handler = HANDLERS[OPERATIONS[name].input]
    assert handler.__module__.startswith(OPERATION_ROOM)
    assert handler.__module__.removeprefix(OPERATION_ROOM).partition(".")[0] == noun_of(name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_rows_of_an_operation_have_the_same_noun(name):
    assert f"{ROWS_ROOM}{noun_of(name)}" in project.source_modules()

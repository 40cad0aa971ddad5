"""The exception tree: told apart by who can act."""

from __future__ import annotations

from cryostore.core import errors
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError


def test_every_error_is_one_of_ours_with_message_and_hint():
    """Message and hint are kept apart, so that a hint can be shown on its own line."""
    error = StorageFullError("no space", hint="delete something")
    assert (str(error), error.message, error.hint) == ("no space", "no space", "delete something")
    assert isinstance(error, StorageUnavailableError)
    assert CryostoreError("x").hint == ""


def test_docstring_draws_the_whole_tree():
    """The picture at the top of the module names every class in it."""
    names = [name for name, found in vars(errors).items() if isinstance(found, type)]
    assert [name for name in names if name not in errors.__doc__] == []

"""The exception tree of Cryostore's own errors."""

from __future__ import annotations

from cryostore.core import errors
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError


def test_every_error_is_a_cryostore_error_with_message_and_hint():
    """Message and hint are separate, so that a hint can be shown on its own line."""
    error = StorageFullError("no space", hint="delete something")
    assert (str(error), error.message, error.hint) == ("no space", "no space", "delete something")
    assert isinstance(error, StorageUnavailableError)
    assert CryostoreError("x").hint == ""


def test_docstring_draws_the_whole_tree():
    """The tree in the module's docstring names every class."""
    names = [name for name, found in vars(errors).items() if isinstance(found, type)]
    assert [name for name in names if name not in errors.__doc__] == []

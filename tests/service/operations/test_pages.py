"""Pages of control-plane lists, and their time filters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cryostore.model.errors import InvalidParameterValueException
from cryostore.model.vaults import ListBackupVaults
from cryostore.service.operations.pages import ITEMS_DEFAULT, cut_page, requested_page, time_conditions
from cryostore.service.tokens import Tokens

CONTEXT = SimpleNamespace(tokens=Tokens(b"secret"))


def test_a_page_has_the_default_size_and_starts_at_the_beginning():
    page = requested_page(CONTEXT, ListBackupVaults())
    assert (page.after, page.limit) == (None, ITEMS_DEFAULT)


def test_a_token_continues_after_the_last_item():
    page = requested_page(CONTEXT, ListBackupVaults(max_results=2))
    items, token = cut_page(CONTEXT, page, ["a", "b", "c"], str)
    assert items == ["a", "b"]
    assert requested_page(CONTEXT, ListBackupVaults(max_results=7, next_token=token)).after == "b"


def test_the_last_page_has_no_token():
    page = requested_page(CONTEXT, ListBackupVaults(max_results=2))
    assert cut_page(CONTEXT, page, ["a", "b"], str) == (["a", "b"], None)


def test_a_token_does_not_fit_other_filters():
    page = requested_page(CONTEXT, ListBackupVaults(max_results=1))
    _, token = cut_page(CONTEXT, page, ["a", "b"], str)
    with pytest.raises(InvalidParameterValueException):
        requested_page(CONTEXT, ListBackupVaults(by_shared=True, next_token=token))


def test_time_filters_are_in_milliseconds():
    found = time_conditions(1.5, None, None, 2.0)
    assert {name: value for name, (_, value) in found.items()} == {
        "created_after": 1500,
        "created_before": None,
        "complete_after": None,
        "complete_before": 2000,
    }

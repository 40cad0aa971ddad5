"""Cache of data keys: each is opened once, by number or by id; a missing one is remembered with its reason."""

from __future__ import annotations

import pytest

from cryostore.core.errors import KeyUnavailableError
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from support.stores.shop import Shop


@pytest.fixture
def shop():
    return Shop()


def key_number(shop):
    return shop.store.database.read(lambda t: t.row("SELECT key_number FROM chunk LIMIT 1"))[0]


def test_a_key_is_found_by_number_and_by_id(shop):
    opened = OpenedKeys(shop.context)
    key = opened.of_number(key_number(shop))
    owned = opened.of_id(key.key_id)
    assert (owned.key_number, owned.key) == (key_number(shop), key)
    assert opened.key_of(key.key_id) is key
    assert opened.missing == {}


def test_an_unknown_id_has_no_key(shop):
    opened = OpenedKeys(shop.context)
    assert opened.of_id(bytes(16)) is None
    assert opened.key_of(bytes(16)) is None


def test_a_missing_key_is_tried_once_and_its_reason_kept(shop, monkeypatch):
    asked = []

    def opening(_, number):
        asked.append(number)
        raise KeyUnavailableError("it is locked away")

    monkeypatch.setattr(type(shop.context.keys), "opening", opening)
    opened = OpenedKeys(shop.context)
    for _ in range(2):
        assert opened.of_number(7) is None
    assert asked == [7]
    assert opened.missing == {7: "it is locked away"}

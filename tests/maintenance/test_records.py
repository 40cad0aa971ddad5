"""Records that are due: what cannot be written does not keep the rest from being written."""

from __future__ import annotations

from functools import partial

import pytest

from cryostore.catalog import records
from cryostore.core.errors import KeyUnavailableError
from cryostore.maintenance import records as maintenance_records
from cryostore.maintenance.records import write_due
from cryostore.service.records import record_due
from support.api import new_resource
from support.shop import Shop

LOST = 7


def due(shop):
    """The keys of all that is due."""
    return [row.key for row in shop.store.database.read(lambda t: records.due(t, 1000))]


def touch_all(shop):
    """Let every record be due."""
    shop.store.database.write(lambda t: t.run("UPDATE record SET changes = changes + 1"))


@pytest.fixture
def shop(monkeypatch):
    """Points in two vaults; the keys of the first vault, which has more of them, are lost."""
    shop = Shop()
    for number in range(LOST):
        shop.api.backup({"a": b"%d" % number}, resource=new_resource())
    shop.api.new_vault()
    shop.api.backup({"a": b"other"}, resource=new_resource())
    sealing = shop.context.keys.sealing

    def only_of_others(vault_id):
        if vault_id == 1:
            raise KeyUnavailableError("the key is lost")
        return sealing(vault_id)

    monkeypatch.setattr(type(shop.context.keys), "sealing", lambda _, vault_id: only_of_others(vault_id))
    return shop


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_more_rows_than_a_page_whose_key_is_lost_do_not_keep_others_waiting(shop, limit, monkeypatch):
    touch_all(shop)
    before = len(due(shop))
    monkeypatch.setattr(maintenance_records, "record_due", partial(record_due, limit=limit))
    with pytest.raises(KeyUnavailableError):
        write_due(shop.context)
    assert len(due(shop)) == LOST + 1 < before, "those of the first vault, whose first point is the shop's own"


def test_without_a_lost_key_all_is_written(monkeypatch):
    shop = Shop()
    touch_all(shop)
    assert not record_due(shop.context, limit=1)
    assert record_due(shop.context)
    assert due(shop) == []

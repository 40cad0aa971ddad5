"""Uses of master keys: counted by table and for records, by the id of the key that wraps."""

from __future__ import annotations

from cryostore.catalog.rows.keys import WRAPPED
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.key_uses import DAMAGED, RECORD, KeyUses, count_key_uses, wrapped_by, wrapped_pages
from support.stores.shop import Shop


def test_uses_are_counted_by_key_and_kind():
    found = KeyUses()
    for kind in ("secret", "secret", "vault_key"):
        found.count("one", kind)
    found.count("two", "secret")
    assert {key: dict(kinds) for key, kinds in found.by_key.items()} == {
        "one": {"secret": 2, "vault_key": 1},
        "two": {"secret": 1},
    }


def test_everything_in_a_store_is_wrapped_with_its_only_key():
    shop = Shop()
    maintain(shop.process.service)
    found = count_key_uses(shop.context)
    (counts,) = found.by_key.values()
    assert set(found.by_key) == {shop.context.keys.keyring.source.active().key_id}
    assert found.due == 0
    for table in WRAPPED:
        assert counts[table] == sum(len(rows) for rows in wrapped_pages(shop.context, table))
    assert counts[RECORD] >= 1


def test_a_record_that_is_due_is_counted():
    shop = Shop()
    maintain(shop.process.service)
    shop.store.database.write(lambda t: t.run("UPDATE record SET changes = changes + 1 WHERE noun = 'vault'"))
    assert count_key_uses(shop.context).due == 1


def test_damaged_wrapped_bytes_name_no_key():
    assert wrapped_by(b"not a wrapped key") == DAMAGED

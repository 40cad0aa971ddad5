"""Health reports of nodes, and whether a node is the only one that cannot use the blobs."""

from __future__ import annotations

import pytest

from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import HOUR_MS
from cryostore.maintenance.nodes import Node, forget_dead, held_keys, live_nodes, needed_keys
from support.stores.shop import Shop


def fail():
    raise StorageUnavailableError("the route is down")


def test_a_node_is_alone_only_while_another_can_use_the_blobs():
    shop = Shop()
    broken = [True]
    one = Node(shop.context, lambda: fail() if broken[0] else None, name="one/1")
    two = Node(shop.context, lambda: None, name="two/1")
    with pytest.raises(StorageUnavailableError, match="the route is down"):
        one.report()
    assert not one.alone, "no other node has reported"
    shop.store.clock.advance(1000)
    two.report()
    with pytest.raises(StorageUnavailableError):
        one.report()
    assert one.alone
    assert [each.trouble for each in live_nodes(shop.context)] == ["the route is down", ""]
    broken[0] = False
    one.report()
    assert not one.alone


def test_no_node_is_alone_if_none_can_use_the_blobs():
    shop = Shop()
    nodes = [Node(shop.context, fail, name=f"{number}/1") for number in range(2)]
    for node in nodes * 2:
        with pytest.raises(StorageUnavailableError):
            node.report()
        shop.store.clock.advance(1000)
    assert [node.alone for node in nodes] == [False, False]


def test_the_report_of_a_node_that_leaves_or_dies_is_removed():
    shop = Shop()
    one, two = (Node(shop.context, lambda: None, name=name) for name in ("one/1", "two/1"))
    one.report()
    two.report()
    one.leave()
    assert [each.name for each in live_nodes(shop.context)] == ["two/1"]
    shop.store.clock.advance(HOUR_MS)
    assert live_nodes(shop.context) == []
    forget_dead(shop.context)
    assert shop.store.database.read(lambda t: t.row("SELECT count(*) FROM node")) == (0,)


def test_the_needed_keys_are_among_those_that_a_healthy_node_holds():
    shop = Shop()
    assert needed_keys(shop.context)
    assert needed_keys(shop.context) <= held_keys(shop.context) or not held_keys(shop.context)

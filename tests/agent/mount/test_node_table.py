"""Table of nodes: numbers are dropped when the kernel forgets them."""

from __future__ import annotations

import pytest

from cryostore.agent.mount.node_table import ROOT, NodeLocation, NodeTable


def test_nodes_are_dropped_when_the_kernel_forgets_them():
    nodes = NodeTable(NodeLocation("", b""))
    number = nodes.look_up(NodeLocation("a", b"x"))
    assert nodes.look_up(NodeLocation("a", b"x")) == number
    assert nodes.location(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    assert nodes.location(number) == NodeLocation("a", b"x")
    nodes.forget(number, 1)
    with pytest.raises(FileNotFoundError):
        nodes.location(number)
    nodes.forget(number, 1)
    nodes.forget(ROOT, 100)
    assert nodes.location(ROOT) == NodeLocation("", b"")
    assert nodes.look_up(NodeLocation("a", b"x")) != number
    assert len(nodes) == 2

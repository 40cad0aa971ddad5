"""Reports of nodes: they count while they are recent; old ones and those from the future are deleted."""

from __future__ import annotations

from cryostore.catalog.processes import nodes
from cryostore.catalog.processes.nodes import LIVE_MS, NodeReport

NOW_MS = 1_000_000


def report(name, seen_ms=NOW_MS, keys=("old", "new"), trouble=""):
    return NodeReport(name, frozenset(keys), trouble, seen_ms)


def put(catalog, *reports):
    for one in reports:
        catalog.write(lambda t, one=one: nodes.put(t, one))


def live(catalog, now_ms=NOW_MS):
    return catalog.read(lambda t: nodes.live(t, now_ms=now_ms))


def test_the_latest_report_of_each_node_counts(catalog):
    put(catalog, report("b"), report("a", trouble="no disk"), report("b", NOW_MS + 1, keys=()))
    assert live(catalog) == [report("a", trouble="no disk"), report("b", NOW_MS + 1, keys=())]


def test_old_reports_and_those_from_the_future_do_not_count(catalog):
    put(catalog, report("young", NOW_MS - LIVE_MS), report("old", NOW_MS - LIVE_MS - 1))
    assert [node.name for node in live(catalog)] == ["young"]
    assert catalog.read(lambda t: nodes.any_dead(t, now_ms=NOW_MS))
    catalog.write(lambda t: nodes.forget_dead(t, now_ms=NOW_MS))
    assert not catalog.read(lambda t: nodes.any_dead(t, now_ms=NOW_MS))
    put(catalog, report("ahead", NOW_MS + LIVE_MS + 1))
    assert [node.name for node in live(catalog)] == ["young"]
    catalog.write(lambda t: nodes.forget_dead(t, now_ms=NOW_MS))
    assert live(catalog, NOW_MS + LIVE_MS) == []


def test_the_report_of_a_node_is_deleted_at_shutdown(catalog):
    put(catalog, report("a"), report("b"))
    catalog.write(lambda t: nodes.leave(t, "a"))
    assert [node.name for node in live(catalog)] == ["b"]


def test_nodes_that_lack_a_key_are_named():
    reports = [report("a", keys=["old"]), report("b"), report("c", keys=[])]
    assert nodes.lacking(reports, "new") == ["a", "c"]

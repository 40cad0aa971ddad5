"""Findings by kind, the worst first, with a bounded number of examples."""

from __future__ import annotations

from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.finding_kinds import EXAMPLES_MAX, KINDS, Findings


def test_every_kind_has_a_unique_name_a_meaning_and_an_advice():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.meaning and kind.advice for kind in KINDS)
    declared = {value for value in vars(finding_kinds).values() if isinstance(value, finding_kinds.FindingKind)}
    assert declared == set(KINDS)


def test_findings_are_counted_and_the_worst_come_first():
    findings = Findings()
    findings.add(finding_kinds.TORN_TAIL, "a tail")
    findings.add(finding_kinds.CATALOG_DAMAGED, "the catalog", count=3)
    for number in range(EXAMPLES_MAX + 5):
        findings.add(finding_kinds.TORN_TAIL, f"tail {number}")
    first, second = findings.all()
    assert (first.kind, first.count) == (finding_kinds.CATALOG_DAMAGED, 3)
    assert (second.count, len(second.examples)) == (EXAMPLES_MAX + 6, EXAMPLES_MAX)
    assert findings.count(finding_kinds.TORN_TAIL) == EXAMPLES_MAX + 6
    assert findings.count(finding_kinds.NO_KEY) == 0


def test_findings_of_some_kinds_are_copied():
    ours, theirs = Findings(), Findings()
    theirs.add(finding_kinds.NO_KEY, "a key")
    theirs.add(finding_kinds.TORN_TAIL, "a tail")
    ours.take(theirs, finding_kinds.NO_KEY, finding_kinds.UNREADABLE)
    assert [found.kind for found in ours.all()] == [finding_kinds.NO_KEY]

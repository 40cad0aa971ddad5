"""Report of a run: it counts every issue and keeps the first ones."""

from cryostore.agent.report import ISSUES_KEPT_MAX, Issue, Report


def test_all_issues_are_counted_and_the_first_are_kept():
    report = Report()
    for number in range(ISSUES_KEPT_MAX + 5):
        report.issue(b"%d" % number, "reason")
    assert report.issue_count == ISSUES_KEPT_MAX + 5
    assert len(report.issues) == ISSUES_KEPT_MAX
    assert report.issues[0] == Issue(b"0", "reason")
    assert report.issues[-1] == Issue(b"%d" % (ISSUES_KEPT_MAX - 1), "reason")

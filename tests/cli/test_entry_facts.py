"""Entries of a recovery point in results."""

from __future__ import annotations

import base64

from cryostore.agent.report import Report
from cryostore.cli.entry_facts import path_facts, say_issues


def test_a_path_of_any_bytes_survives_json():
    assert path_facts("ä/b".encode()) == {"path": "ä/b"}
    found = path_facts(b"\xff")
    assert found["path"].encode("utf-8", "surrogateescape") == b"\xff"
    assert base64.b64decode(found["path_base64"]) == b"\xff"


def test_issues_beyond_those_that_are_kept_are_counted(capsys):
    report = Report()
    for number in range(1002):
        report.issue(b"%d" % number, "no")
    say_issues(report, as_json=False)
    assert capsys.readouterr().err.splitlines()[-1] == "and 2 more"

"""`cryo points`: the list of recovery points."""

from __future__ import annotations

from cryostore.cli.exit_codes import OK


def test_a_message_says_that_no_recovery_point_matches(cryo, source):
    cryo("backup", source, "--resource", "tree")
    assert cryo("points", "--resource", "other") == (OK, "", "no matching recovery point\n")
    assert cryo("points", "--resource", "other", "--json") == (OK, "", "")

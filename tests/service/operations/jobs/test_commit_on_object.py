"""CommitOnObject of the service in process."""

from __future__ import annotations

from conformance import api_commits


class TestCommitOnObject(api_commits.CommitOnObjectTests):
    pass

"""Commits of the service in process."""

from __future__ import annotations

from conformance import api_commits


class TestCommit(api_commits.CommitTests):
    pass


class TestRestoreMetadata(api_commits.RestoreMetadataTests):
    pass


class TestCommitOnObject(api_commits.CommitOnObjectTests):
    pass

"""Restore jobs of the service in process."""

from __future__ import annotations

from conformance import api_restore_jobs


class TestRestoreJob(api_restore_jobs.RestoreJobTests):
    pass


class TestRestoreJobList(api_restore_jobs.RestoreJobListTests):
    pass


class TestRestoreJobTime(api_restore_jobs.RestoreJobTimeTests):
    pass

"""Backup jobs of the service in process."""

from __future__ import annotations

from conformance import api_jobs


class TestStartBackupJob(api_jobs.StartBackupJobTests):
    pass


class TestBase(api_jobs.BaseTests):
    pass


class TestJobStates(api_jobs.JobStateTests):
    pass


class TestJobList(api_jobs.JobListTests):
    pass


class TestJobTimes(api_jobs.JobTimeTests):
    pass

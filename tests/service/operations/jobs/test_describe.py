"""DescribeBackupJob and ListBackupJobs of the service in process."""

from __future__ import annotations

from conformance import api_jobs


class TestJobList(api_jobs.JobListTests):
    pass


class TestJobTimes(api_jobs.JobTimeTests):
    pass

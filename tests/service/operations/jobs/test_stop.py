"""StopBackupJob and the states of jobs of the service in process."""

from __future__ import annotations

from conformance import api_jobs


class TestJobStates(api_jobs.JobStateTests):
    pass

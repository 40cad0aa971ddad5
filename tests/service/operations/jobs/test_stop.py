"""StopBackupJob and the states of jobs of the service in process."""

from __future__ import annotations

from conformance import api_jobs

COVERS = ("service/operations/jobs/lookup.py",)


class TestJobStates(api_jobs.JobStateTests):
    pass

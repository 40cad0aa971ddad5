"""StartBackupJob of the service in process."""

from __future__ import annotations

from conformance import api_jobs

COVERS = ("service/operations/idempotency.py",)


class TestStartBackupJob(api_jobs.StartBackupJobTests):
    pass

"""The incremental base of jobs of the service in process."""

from __future__ import annotations

from conformance import api_jobs

COVERS = ("service/operations/jobs/describe.py",)


class TestBase(api_jobs.BaseTests):
    pass

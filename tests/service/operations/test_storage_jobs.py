"""Storage jobs of the service in process, and their tokens."""

from __future__ import annotations

from conformance import api_storage_jobs


class TestTokens(api_storage_jobs.TokenTests):
    pass


class TestStorageJobs(api_storage_jobs.StorageJobTests):
    pass

"""ListObjects of the service in process."""

from __future__ import annotations

from conformance import api_storage_jobs


class TestListObjects(api_storage_jobs.ListObjectsTests):
    pass


class TestCreationTimes(api_storage_jobs.CreationTimeTests):
    pass

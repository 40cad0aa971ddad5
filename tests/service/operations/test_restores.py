"""Reading from storage jobs of the service in process."""

from __future__ import annotations

from conformance import api_restores


class TestListObjects(api_restores.ListObjectsTests):
    pass


class TestTokens(api_restores.TokenTests):
    pass


class TestStorageJobs(api_restores.StorageJobTests):
    pass


class TestCreationTimes(api_restores.CreationTimeTests):
    pass

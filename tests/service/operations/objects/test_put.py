"""PutObject, StartObject and DeleteObject of the service in process."""

from __future__ import annotations

from conformance import api_objects

COVERS = ("service/operations/objects/write.py",)


class TestPutObject(api_objects.PutObjectTests):
    pass


class TestDuplicates(api_objects.DuplicateTests):
    pass


class TestNames(api_objects.NameTests):
    pass


class TestMetadataStrings(api_objects.MetadataStringTests):
    pass


class TestDeleteObject(api_objects.DeleteObjectTests):
    pass


class TestAbsentJobs(api_objects.AbsentJobTests):
    pass

"""The self-test finds broken promises of a service, and leaves nothing behind."""

from __future__ import annotations

import pytest

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.core.errors import ConfigurationError, StorageUnavailableError
from support.faults.faulty_blobs import FaultyObjects


class Replacing(MemoryBlobs):
    """A service that accepts the condition of a put and ignores it."""

    def put(self, key, data):
        self._blobs[key] = bytearray(data)


class Forgetful(MemoryBlobs):
    """A service with stale listings."""

    def list(self, prefix="", after=""):
        return iter(())


class Whole(MemoryBlobs):
    """A service that ignores ranges."""

    def get(self, key, offset=0, length=None):
        return super().get(key)


def test_a_sound_store_passes():
    blobs = MemoryBlobs()
    check_blob_store(blobs, "a")
    assert list(blobs.list()) == []


@pytest.mark.parametrize(
    ("kind", "words"), [(Replacing, "replaces"), (Forgetful, "does not show"), (Whole, "other bytes")]
)
def test_a_broken_promise_is_named(kind, words):
    blobs = kind()
    with pytest.raises(ConfigurationError, match=words) as caught:
        check_blob_store(blobs, "a")
    assert "conditional" in caught.value.hint
    assert blobs._blobs == {}


def test_an_outage_is_not_a_broken_promise():
    blobs = FaultyObjects(MemoryBlobs())
    blobs.fail("put", at=2)
    with pytest.raises(StorageUnavailableError):
        check_blob_store(blobs, "a")

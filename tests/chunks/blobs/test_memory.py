"""The contract of blobs in memory, and of the fault-injecting wrapper without faults."""

from __future__ import annotations

import pytest

from conformance.blobstore import AppendableTests, BlobStoreTests
from cryostore.chunks.blobs.memory import MemoryBlobs
from support.faults.faulty_blobs import CrashingBlobs, FaultyBlobs, FaultyObjects


class TestMemoryBlobs(BlobStoreTests, AppendableTests):
    @pytest.fixture
    def store(self):
        return MemoryBlobs()

    def peek(self, store, key):
        blob = store._blobs.get(key)
        return None if blob is None else bytes(blob)

    def plant(self, store, key, data):
        store._blobs[key] = bytearray(data)


class TestCrashingBlobs(TestMemoryBlobs):
    @pytest.fixture
    def store(self):
        return CrashingBlobs()


class TestFaultyObjects(BlobStoreTests):
    @pytest.fixture
    def store(self):
        return FaultyObjects(MemoryBlobs())

    def peek(self, store, key):
        return TestMemoryBlobs.peek(self, store.inner, key)

    def plant(self, store, key, data):
        TestMemoryBlobs.plant(self, store.inner, key, data)


class TestFaultyBlobs(TestFaultyObjects, AppendableTests):
    @pytest.fixture
    def store(self):
        return FaultyBlobs(MemoryBlobs())

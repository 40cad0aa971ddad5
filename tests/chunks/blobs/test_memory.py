"""The memory store, and the faulty wrapper without faults, keep the contract."""

from __future__ import annotations

import pytest

from conformance.blobstore import AppendableTests, BlobStoreTests
from cryostore.chunks.blobs.memory import MemoryBlobs
from support.faulty_blobs import CrashingBlobs, FaultyBlobs


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


class TestFaultyBlobs(TestMemoryBlobs):
    @pytest.fixture
    def store(self):
        return FaultyBlobs(MemoryBlobs())

    def peek(self, store, key):
        return super().peek(store.inner, key)

    def plant(self, store, key, data):
        super().plant(store.inner, key, data)

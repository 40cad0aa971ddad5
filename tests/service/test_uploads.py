"""NotifyObjectComplete of the service in process, and what of uploads only shows there."""

from __future__ import annotations

from conformance import api_chunks


class TestCompletion(api_chunks.CompletionTests):
    pass


class TestMetadata(api_chunks.MetadataTests):
    pass


class TestManyChunks(api_chunks.ManyChunksTests):
    pass

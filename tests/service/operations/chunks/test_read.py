"""ListChunks and GetChunk of the service in process."""

from __future__ import annotations

from conformance import api_chunks


class TestManyChunks(api_chunks.ManyChunksTests):
    pass

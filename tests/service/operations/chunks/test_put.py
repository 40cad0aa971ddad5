"""PutChunk of the service in process."""

from __future__ import annotations

from conformance import api_chunks


class TestPutChunk(api_chunks.PutChunkTests):
    pass

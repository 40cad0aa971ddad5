"""LinkChunks of the service in process."""

from __future__ import annotations

from conformance import api_chunks
from cryostore.service import Caller
from cryostore.service.operations.chunks.link import may_link


class TestLinkChunks(api_chunks.LinkChunksTests):
    pass


def test_only_a_caller_that_may_read_the_vault_may_link():
    assert may_link(Caller("AKIAROOT", root=True), "Default")
    assert not may_link(Caller("AKIANOBODY"), "Default")

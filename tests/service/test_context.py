"""The tally: counters of one process for its metrics."""

from __future__ import annotations

from cryostore.service.context import Tally


def test_stored_and_shared_payloads_are_counted_apart():
    tally = Tally()
    tally.stored(5)
    tally.stored(7)
    tally.shared(3)
    assert (tally.chunks_stored, tally.bytes_stored) == (2, 12)
    assert (tally.chunks_shared, tally.bytes_shared) == (1, 3)
    assert tally.traffic == {}

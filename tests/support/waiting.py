"""Waiting for something that nothing announces, such as that a thread has fallen asleep."""

from __future__ import annotations

import time

SECONDS_MAX = 30


def until(condition, *, seconds_max=SECONDS_MAX, pause_seconds=0):
    """Spin until `condition()` holds; fail the test, rather than hang, if it never does."""
    end = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause_seconds)  # let the other threads run


def until_gathering(group, count):
    """Until so many items wait for the next flush of a GroupFlush."""

    def gathered():
        with group._gate:
            return group._gathering is not None and len(group._gathering.items) == count

    until(gathered)

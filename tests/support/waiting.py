"""Waiting for something that nothing announces, such as that a thread has fallen asleep."""

from __future__ import annotations

import time

SECONDS_MAX = 30


def until(condition):
    """Spin until `condition()` holds; fail the test, rather than hang, if it never does."""
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0)  # let the other threads run


def until_gathering(group, count):
    """Until so many items wait for the next flush of a GroupFlush."""

    def gathered():
        with group._gate:
            return group._gathering is not None and len(group._gathering.items) == count

    until(gathered)

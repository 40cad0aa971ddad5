"""Waiting for conditions without an event, such as a thread that has fallen asleep."""

from __future__ import annotations

import time

SECONDS_MAX = 30


def until(condition, *, seconds_max=SECONDS_MAX, pause_seconds=0):
    """Poll until `condition()` holds. Fails the test after `seconds_max`."""
    end = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause_seconds)  # let the other threads run


def until_gathering(group, count):
    """Wait until `count` items wait for the next flush of a GroupFlush."""

    def gathered():
        with group._gate:
            return group._gathering is not None and len(group._gathering.items) == count

    until(gathered)

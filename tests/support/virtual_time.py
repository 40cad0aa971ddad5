"""An event loop with virtual time: it never waits, but jumps to the next timer when nothing else is ready."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Polls without waiting, and advances the time of its loop instead."""

    loop: VirtualTimeLoop

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is left that could wake the event loop")
        if not ready:
            self.loop.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`now` is the time in seconds; adding to it simulates a frozen process. For loops without threads."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_in_virtual_time(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end. Sleeping takes no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario)

"""A thread that goes on beside a run, for as long as that lasts. What it does is not here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def companion(name: str, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """While the context lasts, `run` goes on in a thread of its own. It returns soon after its event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=run, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

"""A background thread that runs as long as a context lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_thread(name: str, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `run` in a thread while the context lasts.

    At its end, set the event that `run` got and wait for `run` to return.
    """
    ended = threading.Event()
    thread = threading.Thread(target=run, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

"""A background thread runs while its context lasts, and has ended after it."""

import threading

import pytest

from cryostore.core.background import background_thread


def test_the_thread_runs_until_the_context_ends():
    running, ended = threading.Event(), []

    def run(end):
        running.set()
        assert end.wait(10)
        ended.append(threading.current_thread().name)

    with background_thread("beside", run):
        assert running.wait(10)
        assert not ended
    assert ended == ["beside"]


def test_the_thread_ends_after_an_error_too():
    ended = threading.Event()

    def run(end):
        assert end.wait(10)
        ended.set()

    with pytest.raises(ValueError, match="of the context"), background_thread("beside", run):
        raise ValueError("of the context")
    assert ended.is_set()

"""Graceful shutdown: a signal is noted anywhere, and raised once, at a safe point."""

import os
import signal
import threading
import time

import pytest

from cryostore.core import interrupts
from cryostore.core.interrupts import check, check_task, deferred, interruptible, is_requested


def interrupt(number=signal.SIGINT):
    signal.raise_signal(number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_is_raised_at_a_safe_point_and_once(number):
    with deferred():
        check()
        assert not is_requested()
        interrupt(number)
        assert is_requested()
        with pytest.raises(KeyboardInterrupt):
            check()
        check()  # clean-up code is not interrupted
        with interruptible:
            pass
        assert is_requested()
    assert not is_requested()


def test_an_interruptible_call_is_interrupted_at_once():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb"), deferred():
        main = threading.get_ident()
        # Not at once: Python misses a signal that arrives just before the system call until the next one.
        sender = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGTERM))
        sender.start()
        with pytest.raises(KeyboardInterrupt), interruptible:
            os.read(source.fileno(), 1)
        sender.join()
        check()


def test_no_interruptible_call_begins_after_a_request():
    with deferred():
        interrupt()
        with pytest.raises(KeyboardInterrupt), interruptible:
            pytest.fail("the call began")
        interrupt()  # the same request again: clean-up code is no longer interruptible


def test_a_second_request_is_raised_at_once(monkeypatch):
    now = 1.0
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now)
    with deferred():
        interrupt()
        now += interrupts.SAME_REQUEST_SECONDS
        interrupt(signal.SIGHUP)  # a terminal and its shell both send a signal
        now += 0.1
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_the_main_thread_ends_other_threads():
    raised = []

    def run():
        try:
            check()
            with interruptible:
                assert is_requested()
        except KeyboardInterrupt as error:
            raised.append(error)

    with deferred():
        interrupt()
        other = threading.Thread(target=run)
        other.start()
        other.join()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert raised == []


def test_a_waiting_thread_does_not_block_the_main_one():
    inside, leave = threading.Event(), threading.Event()

    def run():
        with interruptible:
            inside.set()
            leave.wait(10)

    with deferred():
        other = threading.Thread(target=run)
        other.start()
        assert inside.wait(10)
        interrupt()
        leave.set()
        other.join()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_handlers_are_restored_and_those_of_other_code_stay(monkeypatch):
    foreign = [signal.SIG_IGN, lambda *_: None]
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        for handler in foreign:
            signal.signal(signal.SIGHUP, handler)
            with deferred():
                assert signal.getsignal(signal.SIGHUP) is handler
                assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
            assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_nested_context_has_no_effect():
    with deferred():
        with deferred(), pytest.raises(KeyboardInterrupt), interruptible:
            interrupt()
        assert is_requested()
        check()
    assert not is_requested()


def test_a_request_ends_a_sleep():
    with deferred():
        interrupts.sleep(0.001)
        interrupt()
        begun = time.monotonic()
        interrupts.sleep(60)
        assert time.monotonic() - begun < 30


def test_a_task_is_interrupted_in_its_own_thread_too():
    raised = []

    def run():
        try:
            check_task()
        except KeyboardInterrupt as error:
            raised.append(error)

    def begin():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    with deferred():
        begin()
        assert not raised
        interrupt()
        begin()
        assert raised
        with pytest.raises(KeyboardInterrupt):
            check_task()
        check_task()


def test_a_second_signal_does_not_kill_a_run_that_ends(monkeypatch):
    now = 1.0
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now)
    with deferred():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            check()
    interrupt(signal.SIGTERM)  # Python's own handler would end the test run
    now += 2.0
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGTERM)
    with deferred():  # a new run starts without a request
        check()
        interrupt(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check()
    interrupts.restore_handlers()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_context_nothing_has_an_effect():
    check()
    with interruptible:
        assert not is_requested()
    with pytest.raises(KeyboardInterrupt):
        interrupt()

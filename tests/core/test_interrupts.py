"""Being told to end: noted everywhere, raised where a run may end, and once."""

import os
import queue
import signal
import threading
import time

import pytest

from cryostore.core import interrupts
from cryostore.core.interrupts import check, check_task, deferred, grace_period, interruptible, is_requested


def tell(number=signal.SIGINT):
    signal.raise_signal(number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_is_raised_where_the_run_may_end_and_once(number):
    with deferred():
        check()
        assert not is_requested()
        tell(number)
        assert is_requested()
        with pytest.raises(KeyboardInterrupt):
            check()
        check()  # what cleans up is left in peace
        with interruptible:
            pass
        assert is_requested()
    assert not is_requested()


def test_who_waits_is_told_at_once():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb"), deferred():
        main = threading.get_ident()
        teller = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGTERM))
        teller.start()
        with pytest.raises(KeyboardInterrupt), interruptible:
            os.read(source.fileno(), 1)
        teller.join()
        check()


def test_who_was_told_does_not_begin_to_wait():
    with deferred():
        tell()
        with pytest.raises(KeyboardInterrupt), interruptible:
            pytest.fail("it waits")
        tell()  # the same again: what cleans up is not waiting any more


def test_who_insists_is_heard_at_once(monkeypatch):
    now = 1.0
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now)
    with deferred():
        tell()
        now += interrupts.SAME_REQUEST_SECONDS
        tell(signal.SIGHUP)  # a terminal and its shell say the same
        now += 0.1
        with pytest.raises(KeyboardInterrupt):
            tell()


def test_other_threads_are_ended_by_the_main_one():
    raised = []

    def run():
        try:
            check()
            with interruptible:
                assert is_requested()
        except KeyboardInterrupt as error:
            raised.append(error)

    with deferred():
        tell()
        other = threading.Thread(target=run)
        other.start()
        other.join()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert raised == []


def test_a_thread_that_waits_does_not_make_the_main_one_wait():
    inside, leave = threading.Event(), threading.Event()

    def run():
        with interruptible:
            inside.set()
            leave.wait(10)

    with deferred():
        other = threading.Thread(target=run)
        other.start()
        assert inside.wait(10)
        tell()
        leave.set()
        other.join()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_handlers_are_as_before_afterwards_and_those_of_others_stay(monkeypatch):
    mine = [signal.SIG_IGN, lambda *_: None]
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        for handler in mine:
            signal.signal(signal.SIGHUP, handler)
            with deferred():
                assert signal.getsignal(signal.SIGHUP) is handler
                assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
            assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_context_within_another_is_the_same():
    with deferred():
        with deferred(), pytest.raises(KeyboardInterrupt), interruptible:
            tell()
        assert is_requested()
        check()
    assert not is_requested()


def test_nobody_sleeps_on_who_was_told():
    with deferred():
        interrupts.sleep(0.001)
        tell()
        begun = time.monotonic()
        interrupts.sleep(60)
        assert time.monotonic() - begun < 30


def test_operations_in_flight_have_a_grace_period():
    cut_off = queue.Queue()
    with deferred(), grace_period(cut_off.put, seconds=0.05):
        assert cut_off.empty()
        tell()
        assert cut_off.get(timeout=10) == 0.05
    with deferred(), grace_period(cut_off.put, seconds=0.05):
        pass
    while not cut_off.empty():  # at the end of the context once more, if it was told
        assert cut_off.get() == 0.05


def test_nothing_is_under_way_behind_the_end_of_a_run_that_was_told():
    cut_off = []
    with deferred():
        with grace_period(cut_off.append):
            tell()
        assert cut_off == [interrupts.GRACE_SECONDS]


def test_a_task_ends_in_its_own_thread_too():
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
        tell()
        begin()
        assert raised
        with pytest.raises(KeyboardInterrupt):
            check_task()
        check_task()


def test_the_second_of_two_signals_does_not_kill_what_is_ending(monkeypatch):
    now = 1.0
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now)
    with deferred():
        tell()
        with pytest.raises(KeyboardInterrupt):
            check()
    tell(signal.SIGTERM)  # with Python's own handler it would be the end of the tests
    now += 2.0
    with pytest.raises(KeyboardInterrupt):
        tell(signal.SIGTERM)
    with deferred():  # whoever begins anew is not told
        check()
        tell(signal.SIGTERM)
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
        tell()

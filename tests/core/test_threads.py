"""Threads of a run: after a shutdown, or the end of their context, no thread is left, despite interrupts."""

import queue
import signal
import threading

import pytest

from cryostore.agent.restore.target_directories import TargetDirectories
from cryostore.core.interrupts import deferred
from cryostore.core.threads import GRACE_SECONDS, Threads, background_thread, grace_period, task_result
from cryostore.model.errors import ServiceUnavailableException
from support.waiting import until


def test_shutdown_also_joins_a_thread_whose_start_was_interrupted(monkeypatch):
    begin = threading.Thread.start
    ran, go_on = threading.Event(), threading.Event()
    started, ended = [], []

    def interrupted(thread):
        begin(thread)
        started.append(thread)
        assert ran.wait(10)
        raise KeyboardInterrupt

    def work():
        ran.set()
        assert go_on.wait(10)
        ended.append("task")

    def close():
        pool.shutdown()
        ended.append("shutdown")

    pool = Threads(2, "test")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(work)
    closing = threading.Thread(target=close)
    closing.start()
    until(lambda: pool._shutdown)
    assert ended == []
    go_on.set()
    closing.join(10)
    assert ended == ["task", "shutdown"]
    assert not started[0].is_alive()


def test_a_queued_task_never_starts():
    done, go_on, at_work = [], threading.Event(), threading.Event()

    def work(number):
        at_work.set()
        assert go_on.wait(10)
        done.append(number)

    def release():
        until(futures[2].cancelled)
        go_on.set()

    with Threads(1, "test") as pool:
        futures = [pool.submit(work, number) for number in range(3)]
        assert at_work.wait(10)
        releasing = threading.Thread(target=release)
        releasing.start()
    releasing.join()
    assert done == [0]
    assert [future.cancelled() for future in futures] == [False, True, True]


def test_closed_target_directories_refuse_access(tmp_path):
    target = TargetDirectories(bytes(tmp_path))
    number = target.add(0, b"below", None, created=True)
    target.close()
    for wanted in (0, number):
        with pytest.raises(OSError, match="the target is closed"), target.at(wanted):
            pass


def test_a_shutdown_request_ends_the_wait_for_a_task():
    go_on = threading.Event()
    with deferred(), Threads(1, "test") as pool:
        future = pool.submit(go_on.wait, 10)

        def tell():
            until(lambda: future._condition._waiters)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        teller = threading.Thread(target=tell)
        teller.start()
        with pytest.raises(KeyboardInterrupt):
            task_result(future)
        go_on.set()
        teller.join()
        assert task_result(future) is True


def test_a_timeout_error_of_the_task_itself_is_raised():
    def late():
        raise TimeoutError("its own")

    with Threads(1, "test") as pool, pytest.raises(TimeoutError, match="its own"):
        task_result(pool.submit(late))


def test_an_error_caused_by_the_shutdown_is_an_interrupt():
    """One example is the error of a request that is no longer retried."""

    def ended():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        raise ServiceUnavailableException("not tried again")

    with deferred(), Threads(1, "test") as pool:
        future = pool.submit(ended)
        with pytest.raises(KeyboardInterrupt):
            task_result(future)
        with pytest.raises(ServiceUnavailableException):
            task_result(future)


def test_a_background_thread_runs_until_its_context_ends():
    running, ended = threading.Event(), []

    def run(end):
        running.set()
        assert end.wait(10)
        ended.append(threading.current_thread().name)

    with background_thread("beside", run):
        assert running.wait(10)
        assert not ended
    assert ended == ["beside"]


def test_a_background_thread_also_ends_after_an_error():
    ended = threading.Event()

    def run(end):
        assert end.wait(10)
        ended.set()

    with pytest.raises(ValueError, match="of the context"), background_thread("beside", run):
        raise ValueError("of the context")
    assert ended.is_set()


def test_operations_in_flight_have_a_grace_period():
    cut_off = queue.Queue()
    with deferred(), grace_period(cut_off.put, seconds=0.05):
        assert cut_off.empty()
        signal.raise_signal(signal.SIGINT)
        assert cut_off.get(timeout=10) == 0.05
    with deferred(), grace_period(cut_off.put, seconds=0.05):
        pass
    while not cut_off.empty():  # called again at the end of the context
        assert cut_off.get() == 0.05


def test_no_operation_outlasts_the_context_after_a_request():
    cut_off = []
    with deferred():
        with grace_period(cut_off.append):
            signal.raise_signal(signal.SIGINT)
        assert cut_off == [GRACE_SECONDS]

"""Thread pools: after a shutdown no thread runs, whenever an interrupt came."""

import signal
import threading

import pytest

from cryostore.agent.restore.target_directories import TargetDirectories
from cryostore.core.interrupts import deferred
from cryostore.core.threads import Threads, task_result
from cryostore.model.errors import ServiceUnavailableException


def test_a_thread_that_was_being_started_has_ended_too(monkeypatch):
    begin = threading.Thread.start
    ran, go_on = threading.Event(), threading.Event()
    started = []

    def interrupted(thread):
        begin(thread)
        started.append(thread)
        assert ran.wait(10)
        raise KeyboardInterrupt

    def work():
        ran.set()
        assert go_on.wait(10)

    pool = Threads(2, "test")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(work)
    closing = threading.Thread(target=pool.shutdown)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()  # it waits for the running task
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert not started[0].is_alive()


def test_a_queued_task_never_starts():
    done, go_on, at_work = [], threading.Event(), threading.Event()

    def work(number):
        at_work.set()
        assert go_on.wait(10)
        done.append(number)

    with Threads(1, "test") as pool:
        futures = [pool.submit(work, number) for number in range(3)]
        assert at_work.wait(10)
        threading.Timer(0.02, go_on.set).start()
    assert done == [0]
    assert [future.cancelled() for future in futures] == [False, True, True]


def test_a_closed_target_refuses(tmp_path):
    target = TargetDirectories(bytes(tmp_path))
    number = target.add(0, b"below", None, created=True)
    target.close()
    for wanted in (0, number):
        with pytest.raises(OSError, match="the target is closed"), target.at(wanted):
            pass


def test_after_a_shutdown_request_no_running_task_is_waited_for():
    go_on = threading.Event()
    with deferred(), Threads(1, "test") as pool:
        future = pool.submit(go_on.wait, 10)
        teller = threading.Timer(0.02, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
        teller.start()
        with pytest.raises(KeyboardInterrupt):
            task_result(future)
        go_on.set()
        teller.join()
        assert task_result(future) is True


def test_a_time_out_of_the_task_itself_is_raised():
    def late():
        raise TimeoutError("its own")

    with Threads(1, "test") as pool, pytest.raises(TimeoutError, match="its own"):
        task_result(pool.submit(late))


def test_an_error_caused_by_the_shutdown_is_an_interrupt():
    """For example that of a request that is no longer retried."""

    def ended():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        raise ServiceUnavailableException("not tried again")

    with deferred(), Threads(1, "test") as pool:
        future = pool.submit(ended)
        with pytest.raises(KeyboardInterrupt):
            task_result(future)
        with pytest.raises(ServiceUnavailableException):
            task_result(future)

"""Group flush: which threads share a flush, which wait, and which fail."""

from __future__ import annotations

import threading

import pytest

from cryostore.chunks.packs.writer import GroupFlush
from support.waiting import until_gathering


def start(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


class Gate:
    """A flush that reports its begin, and ends when the test releases it."""

    def __init__(self):
        self.batches = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self, items):
        self.batches.append(sorted(items))
        self.began.release()
        assert self.may_end.acquire(timeout=30)


def test_a_thread_alone_flushes_at_once():
    batches = []
    group = GroupFlush(batches.append)
    group.join("a")
    group.join("b")
    assert batches == [["a"], ["b"]]


def test_items_that_arrive_during_a_flush_share_the_next():
    gate = Gate()
    group = GroupFlush(gate)
    threads = [start(group.join, 0)]
    assert gate.began.acquire(timeout=30)
    threads += [start(group.join, number) for number in range(1, 20)]
    until_gathering(group, 19)
    assert gate.batches == [[0]], "an item does not join a flush that has begun"
    gate.may_end.release(2)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert gate.batches == [[0], list(range(1, 20))]


def test_a_late_item_waits_for_the_next_flush():
    """An item that joins during a flush returns only after a later flush."""
    gate = Gate()
    group = GroupFlush(gate)
    first = start(group.join, "first")
    assert gate.began.acquire(timeout=30)
    late = start(group.join, "late")
    until_gathering(group, 1)
    gate.may_end.release()
    first.join(30)
    assert gate.began.acquire(timeout=30)
    assert late.is_alive()
    gate.may_end.release()
    late.join(30)
    assert not late.is_alive()


def test_an_exception_reaches_only_its_own_batch():
    fail = threading.Event()
    outcomes = {}
    gate = Gate()

    def flush(items):
        gate(items)
        if fail.is_set():
            raise ZeroDivisionError

    group = GroupFlush(flush)

    def join(name):
        try:
            group.join(name)
            outcomes[name] = "flushed"
        except ZeroDivisionError:
            outcomes[name] = "failed"

    first = start(join, "first")
    assert gate.began.acquire(timeout=30)
    others = [start(join, name) for name in "abc"]
    until_gathering(group, 3)
    gate.may_end.release()
    first.join(30)
    assert gate.began.acquire(timeout=30)
    fail.set()
    gate.may_end.release()
    for thread in others:
        thread.join(30)
    fail.clear()
    gate.may_end.release()
    join("after")
    assert outcomes == {"first": "flushed", "a": "failed", "b": "failed", "c": "failed", "after": "flushed"}


def test_flushes_never_overlap_and_each_item_is_in_exactly_one():
    running, seen, overlaps = [], [], []

    def flush(items):
        running.append(1)
        if len(running) > 1:
            overlaps.append(items)
        seen.extend(items)
        running.pop()

    group = GroupFlush(flush)
    threads = [start(lambda base: [group.join(base + step) for step in range(200)], base * 1000) for base in range(8)]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert overlaps == []
    assert sorted(seen) == sorted(base * 1000 + step for base in range(8) for step in range(200))


def test_an_interrupted_leader_wakes_all_threads():
    """The exception comes before its flush begins, as a signal may raise it in the main thread."""
    group = GroupFlush(lambda items: None)

    class Interrupted:
        def __enter__(self):
            follower.append(start(outcome))
            until_gathering(group, 2)
            raise KeyboardInterrupt

        def __exit__(self, *_):
            return False

    failures, follower = [], []

    def outcome():
        try:
            group.join("follower")
        except KeyboardInterrupt as error:
            failures.append(error)

    turn, group._turn = group._turn, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        group.join("leader")
    follower[0].join(30)
    assert len(failures) == 1
    group._turn = turn
    group.join("later")


def test_a_limited_number_of_flushes_run_at_the_same_time():
    gate = Gate()
    group = GroupFlush(gate, flushes_max=3)
    threads = []
    for number in range(3):
        threads.append(start(group.join, number))
        assert gate.began.acquire(timeout=30)
    threads += [start(group.join, number) for number in range(3, 10)]
    until_gathering(group, 7)
    assert gate.batches == [[0], [1], [2]]
    gate.may_end.release(4)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(gate.batches) == [[0], [1], [2], list(range(3, 10))]


def test_a_batch_takes_only_items_that_fit():
    gate = Gate()
    group = GroupFlush(gate, has_room=lambda items, item: len(items) < 2)
    threads = [start(group.join, 0)]
    assert gate.began.acquire(timeout=30)
    for number in range(1, 6):
        threads.append(start(group.join, number))
        until_gathering(group, 2 - number % 2)
    gate.may_end.release(4)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(gate.batches) == [[0], [1, 2], [3, 4], [5]]


def test_failures_stay_within_their_batch():
    """One of two waiting batches fails. The items of the other do not."""
    gate, outcomes = Gate(), {}

    def flush(items):
        gate(items)
        if 1 in items:
            raise OSError("one")

    group = GroupFlush(flush, has_room=lambda items, item: len(items) < 2)

    def join(item):
        try:
            group.join(item)
        except OSError as error:
            outcomes[item] = str(error)
        else:
            outcomes[item] = "done"

    threads = [start(join, 0)]
    assert gate.began.acquire(timeout=30)
    for number in range(1, 5):
        threads.append(start(join, number))
        until_gathering(group, 2 - number % 2)
    gate.may_end.release(3)
    for thread in threads:
        thread.join(30)
    assert outcomes == {0: "done", 1: "one", 2: "one", 3: "done", 4: "done"}

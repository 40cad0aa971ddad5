"""Backoff: how long retries go on, and the delays between them."""

from __future__ import annotations

from cryostore.chunks.blobs.backoff import Backoff


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def backoff(time, **options):
    return Backoff(monotonic=time.monotonic, sleep=time.sleep, **options)


def test_no_try_begins_after_the_end_and_the_last_one_knows_it():
    time = Time()
    tries = list(backoff(time, begin_seconds_max=10).tries("a"))
    assert tries[-1]
    assert not any(tries[:-1])
    assert time.now <= 10 < time.now + 5
    assert len(tries) == len(time.slept) + 1


def test_after_a_long_try_there_is_another_if_it_began_in_time():
    time = Time()
    tries = backoff(time, begin_seconds_max=30).tries("a")
    assert next(tries) is False
    time.now = 25
    assert next(tries) is False
    time.now = 50
    assert list(tries) == [True]


def test_delays_double_up_to_a_limit_and_vary():
    some = backoff(Time(), begin_seconds_max=1, delay_first_seconds=1, delay_seconds_max=8)
    delays = [some.delay_seconds("a", number) for number in range(100)]
    assert all(2**number / 2 <= delay <= 2**number for number, delay in enumerate(delays[:4]))
    assert all(4 <= delay <= 8 for delay in delays[3:])
    assert len({some.delay_seconds(f"blob {name}", 0) for name in range(100)}) > 90


def test_the_first_try_does_not_wait():
    time = Time()
    next(backoff(time, begin_seconds_max=10).tries("a"))
    assert time.slept == []

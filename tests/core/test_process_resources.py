"""Memory of large buffers, and the limit on open files."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from cryostore.core.process_resources import UNFILLED_BYTES_MIN, open_file_limit, raise_open_file_limit, unfilled

# Page faults count fresh pages: a process that keeps its buffers takes the pages of a 4 MiB buffer once, not each time.
PROGRAM = """
import resource, sys
from cryostore.core.process_resources import keep_buffers
if sys.argv[1] == "keep" and not keep_buffers():
    sys.exit(3)
for _ in range(5):
    bytearray(4 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    bytearray(4 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    """Return the page faults of fifty 4 MiB buffers."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip("the C library has no mallopt")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_buffers_are_kept():
    """The next buffer reuses the pages of a freed one."""
    assert faults("keep") < 1024


@pytest.mark.parametrize("length", [0, 1, UNFILLED_BYTES_MIN - 1, UNFILLED_BYTES_MIN, UNFILLED_BYTES_MIN + 1, 4 << 20])
def test_an_unfilled_buffer_is_like_any_other(length):
    """It has the requested length, shares no memory, and can be written and extended like any bytearray."""
    first, second = unfilled(length), unfilled(length)
    assert type(first) is bytearray
    assert len(first) == len(second) == length
    first[:], second[:] = b"a" * length, b"b" * length
    assert first == b"a" * length
    first += b"c"
    assert first == b"a" * length + b"c"
    assert second == b"b" * length


def test_the_limit_is_the_current_soft_limit(monkeypatch):
    limits = iter([(10, 20), (15, 20)])
    monkeypatch.setattr(resource, "getrlimit", lambda _: next(limits))
    assert [open_file_limit(), open_file_limit()] == [10, 15]


def test_the_limit_is_raised_to_the_hard_limit(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    raise_open_file_limit()
    assert limits == [(20, 20)]


@pytest.mark.parametrize("error", [OSError(1, "not permitted"), ValueError("not allowed to raise maximum limit")])
def test_a_refusal_leaves_the_limit_unchanged(monkeypatch, error):
    def refuse(_, both):
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    before = open_file_limit()
    raise_open_file_limit()
    assert open_file_limit() == before

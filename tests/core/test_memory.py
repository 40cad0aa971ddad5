"""Memory: freed buffers are kept, in a process of its own so that no other test feels it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cryostore.core.memory import UNFILLED_BYTES_MIN, unfilled

# Page faults count fresh pages: a process that keeps its buffers takes the pages of a 4 MiB buffer once, not each time.
PROGRAM = """
import resource, sys
from cryostore.core.memory import keep_buffers
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
    """Page faults of fifty 4 MiB buffers."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip("the C library has no mallopt")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_buffers_are_kept():
    """The pages of a freed buffer serve the next one."""
    assert faults("keep") < 1024


@pytest.mark.parametrize("length", [0, 1, UNFILLED_BYTES_MIN - 1, UNFILLED_BYTES_MIN, UNFILLED_BYTES_MIN + 1, 4 << 20])
def test_an_unfilled_buffer_is_like_any_other(length):
    """It has the length asked for, is nobody else's, and can be written, and grow, like any bytearray."""
    first, second = unfilled(length), unfilled(length)
    assert type(first) is bytearray
    assert len(first) == len(second) == length
    first[:], second[:] = b"a" * length, b"b" * length
    assert first == b"a" * length
    first += b"c"
    assert first == b"a" * length + b"c"
    assert second == b"b" * length

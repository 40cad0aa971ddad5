"""The simulated disk of the power-loss tests, on small cases with known results."""

from __future__ import annotations

import os
import sys

import pytest

from support.power.disk import SECTOR_BYTES, Disk
from support.power.states import states
from support.power.trace import Mark, Operation, Sync, Trace, require_strace, traced

FILE = 1
OLD, NEW = b"old", b"new bytes"
GROWN = OLD + bytes(len(NEW) - len(OLD))


def trace(*events, content=OLD):
    """Return the trace of events on one file, "f", which exists from the start."""
    return Trace({"f": content}, {"": 0, "f": FILE}, {0}, list(events))


def write(at, data=NEW, offset=0):
    return Operation("write", FILE, (offset, data), at, at)


def left(*events, **how):
    """Return all possible contents of the file. None: it does not exist."""
    return {state.files.get("f") for state in states(trace(*events), mixtures=20, **how)}


def test_an_unflushed_write_may_be_lost_or_complete_or_zeros():
    assert left(write(1)) == {OLD, NEW, GROWN}


def test_a_flushed_write_is_kept():
    (after,) = (state for state in states(trace(write(1), Sync(FILE, 2, 3, "f"), Mark("after", 4))) if state.marks)
    assert after.files == {"f": NEW}


def test_a_flush_of_another_file_or_from_before_the_write_keeps_nothing():
    for sync in (Sync(2, 2, 3, "g"), Sync(FILE, 0, 3, "f"), Sync(0, 2, 3, "")):
        after = [state.files["f"] for state in states(trace(write(1), sync, Mark("after", 4))) if state.marks]
        assert OLD in after


def test_writes_reach_the_disk_in_any_order():
    first, second = write(1, b"11"), write(2, b"22", offset=2)
    assert left(first, second) >= {OLD, b"11d", b"1122", b"ol22"}


def test_a_write_is_torn_only_between_sectors():
    data = b"x" * (3 * SECTOR_BYTES)
    found = {content.count(b"x") for content in left(write(1, data))}
    assert found == {0, SECTOR_BYTES, 2 * SECTOR_BYTES, 3 * SECTOR_BYTES}


def test_sectors_are_counted_from_the_start_of_the_file():
    found = left(write(1, b"x" * 20, offset=SECTOR_BYTES - 10))
    assert {content.count(b"x") for content in found} == {0, 10, 20}


def test_names_are_independent_of_each_other():
    """A rename takes effect completely or not at all. Each other name exists or not."""
    events = [Operation("link", 0, ("g", 2), 1, 1), write(2), Operation("rename", 0, ("f", "h"), 3, 3)]
    names = {tuple(sorted(state.files)) for state in states(trace(*events), mixtures=20)}
    assert names == {("f",), ("h",), ("f", "g"), ("g", "h")}


def test_a_flushed_directory_keeps_its_names_but_not_the_bytes_of_files():
    events = [Operation("link", 0, ("g", 2), 1, 1), Operation("write", 2, (0, NEW), 2, 2), Sync(0, 3, 4, "")]
    after = [state for state in states(trace(*events, Mark("after", 5))) if state.marks]
    assert {state.files.get("g") for state in after} == {b"", NEW, bytes(len(NEW))}


def test_a_flush_can_be_left_out():
    events = [write(1), Sync(FILE, 2, 3, "f"), Mark("after", 4)]
    for without, expected in ((False, {NEW}), (True, {OLD, NEW, GROWN})):
        found = states(trace(*events), without=lambda _, without=without: without)
        assert {state.files["f"] for state in found if state.marks} == expected


PROGRAM = """
import os, sys
folder, marks = sys.argv[1:]
os.mkdir(folder + "/d")
one = os.open(folder + "/d/one", os.O_RDWR | os.O_CREAT, 0o600)
os.write(one, b"hello ")
os.pwritev(one, [b"wor", b"ld"], 6)
os.lseek(one, 0, os.SEEK_END)
os.write(os.dup(one), b"!")
os.fdatasync(one)
told = os.open(marks, os.O_WRONLY | os.O_CREAT)
os.write(told, b"flushed\\n")
os.ftruncate(one, 5)
os.posix_fallocate(one, 0, 8)
os.close(one)
os.link(folder + "/d/one", folder + "/d/two")
os.rename(folder + "/d/two", folder + "/d/three")
os.unlink(folder + "/old")
directory = os.open(folder + "/d", os.O_RDONLY)
os.fsync(directory)
"""


def test_a_trace_contains_the_operations_of_a_program(tmp_path):
    require_strace()
    folder, marks = tmp_path / "folder", tmp_path / "marks"
    folder.mkdir()
    (folder / "old").write_bytes(b"was there")
    told = traced([sys.executable, "-S", "-c", PROGRAM, str(folder), str(marks)], folder, marks, tmp_path / "log")
    disk = Disk.of(told)
    assert disk.files() == {"old": b"was there"}
    contents = []
    for event in told.events:
        if isinstance(event, Operation):
            disk.apply(event)
        elif isinstance(event, Mark):
            contents.append((event.line, disk.files()["d/one"]))
    assert contents == [("flushed", b"hello world!")]
    assert disk.files() == {"d": None, "d/one": b"hello\0\0\0", "d/three": b"hello\0\0\0"}
    assert disk.files() == {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }
    assert [event.path for event in told.events if isinstance(event, Sync)] == ["d/one", "d"]


@pytest.mark.parametrize("call", ["os.symlink('x', sys.argv[1] + '/s')"])
def test_an_unknown_system_call_is_an_error(tmp_path, call):
    """Otherwise the tests would miss new kinds of calls in the code."""
    require_strace()
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-S", "-c", f"import os, sys; {call}", str(tmp_path / "folder")]
    with pytest.raises(AssertionError, match="not looked at yet"):
        traced(command, tmp_path / "folder", tmp_path / "marks", tmp_path / "log", PATH=os.environ["PATH"])

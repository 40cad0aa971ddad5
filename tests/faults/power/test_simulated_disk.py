"""The simulated disk that loses its power, on small cases whose possible results are known."""

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
    """What happened to one file, "f", which is there from the beginning."""
    return Trace({"f": content}, {"": 0, "f": FILE}, {0}, list(events))


def write(at, data=NEW, offset=0):
    return Operation("write", FILE, (offset, data), at, at)


def left(*events, **how):
    """All that may be in the file, or None where there is none."""
    return {state.files.get("f") for state in states(trace(*events), mixtures=20, **how)}


def test_what_is_not_flushed_may_be_lost_or_there_or_a_size_without_bytes():
    assert left(write(1)) == {OLD, NEW, GROWN}


def test_what_is_flushed_is_there():
    (after,) = (state for state in states(trace(write(1), Sync(FILE, 2, 3, "f"), Mark("after", 4))) if state.marks)
    assert after.files == {"f": NEW}


def test_a_flush_of_another_file_or_one_that_began_too_early_keeps_nothing():
    for sync in (Sync(2, 2, 3, "g"), Sync(FILE, 0, 3, "f"), Sync(0, 2, 3, "")):
        after = [state.files["f"] for state in states(trace(write(1), sync, Mark("after", 4))) if state.marks]
        assert OLD in after


def test_writes_come_in_any_order():
    first, second = write(1, b"11"), write(2, b"22", offset=2)
    assert left(first, second) >= {OLD, b"11d", b"1122", b"ol22"}


def test_a_write_is_torn_at_sectors_and_nowhere_else():
    data = b"x" * (3 * SECTOR_BYTES)
    found = {content.count(b"x") for content in left(write(1, data))}
    assert found == {0, SECTOR_BYTES, 2 * SECTOR_BYTES, 3 * SECTOR_BYTES}


def test_sectors_are_those_of_the_file():
    found = left(write(1, b"x" * 20, offset=SECTOR_BYTES - 10))
    assert {content.count(b"x") for content in found} == {0, 10, 20}


def test_names_come_and_go_by_themselves():
    """A renaming is whole or did not happen; the other names are each there or not."""
    events = [Operation("link", 0, ("g", 2), 1, 1), write(2), Operation("rename", 0, ("f", "h"), 3, 3)]
    names = {tuple(sorted(state.files)) for state in states(trace(*events), mixtures=20)}
    assert names == {("f",), ("h",), ("f", "g"), ("g", "h")}


def test_a_flushed_directory_keeps_its_names_and_not_their_bytes():
    events = [Operation("link", 0, ("g", 2), 1, 1), Operation("write", 2, (0, NEW), 2, 2), Sync(0, 3, 4, "")]
    after = [state for state in states(trace(*events, Mark("after", 5))) if state.marks]
    assert {state.files.get("g") for state in after} == {b"", NEW, bytes(len(NEW))}


def test_leaving_a_flush_out_leaves_it_out():
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


def test_a_trace_tells_what_a_program_did(tmp_path):
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
def test_a_call_that_the_reader_does_not_know_is_told(tmp_path, call):
    """So that a change of the code cannot go past the test."""
    require_strace()
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-S", "-c", f"import os, sys; {call}", str(tmp_path / "folder")]
    with pytest.raises(AssertionError, match="not looked at yet"):
        traced(command, tmp_path / "folder", tmp_path / "marks", tmp_path / "log", PATH=os.environ["PATH"])

"""Processes under measurement: /proc, start and stop."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bench.machine.description import file_system
from bench.machine.processes import StartError, free_port, stat_fields, stop, usage, wait_for_port

BUSY_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3 * 10**7))']); input()"


def test_stat_fields_of_a_process_with_a_strange_name():
    text = "42 (a) b (c)) S 7 42 42 0 -1 0 1 2 3 4 50 60 70 80 20 0"
    fields = stat_fields(text)
    assert fields[:2] == ["S", "7"]
    assert fields[11:15] == ["50", "60", "70", "80"]


def test_usage_includes_children_that_ended():
    with subprocess.Popen([sys.executable, "-c", BUSY_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            while usage(process.pid).cpu_seconds < 0.2 or len(usage(process.pid).memory_peak_bytes) > 1:
                assert process.poll() is None
            assert usage(process.pid).memory_peak_bytes[process.pid] > 10**6
        finally:
            process.communicate(b"\n")


def test_a_program_that_ends_early_is_a_start_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    with pytest.raises(StartError):
        wait_for_port(process, free_port())


def test_stop_may_be_called_twice():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    stop(process)
    stop(process)
    assert process.returncode == -15
    process.stdin.close()


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path):
    mounts = f"dev / ext4 rw 0 0\ndev {tmp_path} btrfs rw 0 0\ndev {tmp_path}x xfs rw 0 0\n"
    assert file_system(tmp_path, mounts) == "btrfs"
    assert file_system(tmp_path.parent, mounts) == "ext4"

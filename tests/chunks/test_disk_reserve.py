"""The disk reserve: whole or absent, released once, created again when there is space, shared by all processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading

import pytest

from cryostore.chunks.blobs.local import LocalBlobs
from cryostore.chunks.disk_reserve import FILE, NO_RESERVE, TRY_AGAIN_SECONDS, DiskReserve
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.core.limits import KIB, MIB
from support.faults.small_disk import small_disk

SIZE = 64 * KIB


@pytest.fixture
def reserve(tmp_path):
    reserve = DiskReserve(tmp_path, SIZE)
    assert reserve.take_back()
    return reserve


def full_once():
    """An action that finds a full disk at its first call."""
    calls = []

    def action():
        calls.append(True)
        if len(calls) == 1:
            raise StorageFullError("no space")
        return len(calls)

    return action


def test_the_reserve_is_allocated(reserve, tmp_path):
    status = (tmp_path / FILE).stat()
    assert (status.st_size, status.st_blocks * 512, status.st_mode & 0o777) == (SIZE, SIZE, 0o600)
    assert list((tmp_path / "~staging").iterdir()) == []


def test_ordinary_writes_are_accepted_while_it_exists_and_never_use_it(reserve):
    assert reserve.spend(lambda: "written") == "written"
    with pytest.raises(StorageFullError, match="no space"):
        reserve.spend(full_once())
    assert reserve.held


def test_a_write_that_frees_space_uses_the_reserve_once(reserve):
    with reserve.spending():
        assert reserve.spend(full_once()) == 2
        assert not reserve.held
        assert not reserve.give_up()
        with pytest.raises(StorageFullError):
            reserve.spend(full_once())


def test_a_write_is_retried_if_another_one_has_just_released_the_reserve(reserve):
    def action(tried=full_once()):  # noqa: B008 - one for both attempts
        reserve.give_up()  # another thread, just now
        return tried()

    with reserve.spending():
        assert reserve.spend(action) == 2


def test_without_the_reserve_every_process_refuses_ordinary_writes(reserve, tmp_path, monkeypatch):
    other = DiskReserve(tmp_path, SIZE)
    reserve.give_up()
    monkeypatch.setattr(DiskReserve, "free_bytes", SIZE)
    for each in (reserve, other):
        with pytest.raises(StorageFullError, match=f"disk full on {os.uname().nodename}: {tmp_path}: 1 MiB needed"):
            each.check()
        with pytest.raises(StorageFullError):
            each.spend(pytest.fail)
        with each.spending():
            assert each.spend(lambda: "freed") == "freed"


def test_the_permission_to_use_it_is_per_thread_and_ends(reserve):
    seen = []
    with reserve.spending():
        with reserve.spending():
            pass
        assert reserve.may_spend
        thread = threading.Thread(target=lambda: seen.append(reserve.may_spend))
        thread.start()
        thread.join()
    assert seen == [False]
    assert not reserve.may_spend


def test_a_write_that_finds_space_creates_it_again(reserve):
    reserve.give_up()
    reserve.check()
    assert reserve.held


def test_it_is_not_created_again_without_twice_the_space(reserve, monkeypatch):
    reserve.give_up()
    monkeypatch.setattr(DiskReserve, "free_bytes", 2 * SIZE - 1)
    assert not reserve.take_back()
    monkeypatch.setattr(DiskReserve, "free_bytes", 2 * SIZE)
    assert reserve.take_back()


@pytest.mark.parametrize("call", ["posix_fallocate", "fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_attempt_leaves_nothing_and_has_a_reason(tmp_path, monkeypatch, call, number):
    seconds = 0.0
    reserve = DiskReserve(tmp_path, SIZE, monotonic=lambda: seconds)
    assert reserve.take_back()
    reserve.give_up()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert not reserve.take_back()
        expected = "reserve cannot be made: Input/output error" if number == errno.EIO else "disk full"
        with pytest.raises(StorageUnavailableError, match=expected):
            reserve.check()
    assert list((tmp_path / "~staging").iterdir()) == []
    seconds += TRY_AGAIN_SECONDS
    reserve.check()
    assert reserve.held


def test_leftovers_of_a_crash_are_removed_and_do_not_count(tmp_path):
    staging = tmp_path / "~staging"
    staging.mkdir()
    (staging / "~half").write_bytes(bytes(SIZE // 2))
    reserve = DiskReserve(tmp_path, SIZE)
    assert not reserve.held
    LocalBlobs(tmp_path).close()
    assert list(staging.iterdir()) == []


def take_back(directory):
    return DiskReserve(directory, SIZE).take_back()


def test_processes_that_create_it_at_the_same_time_create_one(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        assert processes.map(take_back, [tmp_path] * 12, chunksize=1) == [True] * 12
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [FILE]
    assert list((tmp_path / "~staging").iterdir()) == []


def test_a_small_disk_has_a_small_reserve(tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        reserve = DiskReserve(disk.path, 64 * MIB)
        assert reserve.take_back()
        assert (disk.path / FILE).stat().st_size == MIB
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.path / "more").write_bytes(bytes(4 * KIB))
        reserve.give_up()
        (disk.path / "more").write_bytes(bytes(MIB - 64 * KIB))
        assert not reserve.take_back()
        disk.clear()
        assert reserve.take_back()


def test_without_a_size_nothing_is_refused_and_an_existing_reserve_can_be_used(reserve, tmp_path):
    tool = DiskReserve(tmp_path, 0)
    tool.check()
    with tool.spending():
        assert tool.spend(full_once()) == 2
    assert not reserve.held
    tool.check()
    assert tool.spend(lambda: 1) == 1


def test_a_store_without_a_directory_has_no_reserve():
    NO_RESERVE.check()
    assert NO_RESERVE.held
    assert not NO_RESERVE.has_disk
    assert not NO_RESERVE.give_up()

"""Writer of regular files: reuse of existing files, damage, a full target, and failures during a run."""

from __future__ import annotations

import errno
import os
import random

import pytest

from cryostore.core.errors import StorageFullError
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import ServiceInternalException, ServiceUnavailableException
from support.archives.agent import seen, write


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def test_chunks_that_the_target_has_are_not_fetched(runs, tmp_path):
    write(tmp_path / "source", {"large": noise(12 * MIB)})
    runs.backup(tmp_path / "source")
    data = bytearray(noise(12 * MIB))
    data[6 * MIB] ^= 1
    write(tmp_path / "target", {"large": bytes(data)})
    fetched = []

    class Counting:
        def call(self, operation):
            answer = call.call(operation)
            if isinstance(operation, GetChunk):
                fetched.append(answer.length)
            return answer

    call, runs.call = runs.call, Counting()
    runs.restore(tmp_path / "target")
    assert sum(fetched) < 5 * MIB
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_full_target_ends_the_restore(local_runs, backed_up, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageFullError) as failure:
        local_runs.restore(tmp_path / "target")
    assert "free space there" in failure.value.hint
    assert set(seen(tmp_path / "target")) <= {b"", b"folder", b"link"}


class Damaged:
    """A store that has lost all long chunks."""

    def __init__(self, call):
        self.inner = call

    def call(self, operation):
        answer = self.inner.call(operation)
        if isinstance(operation, GetChunk) and answer.length > 64 * KIB:
            raise ServiceInternalException("stored data fails its verification")
        return answer


def test_files_with_sound_chunks_of_a_damaged_archive_are_restored(local_runs, tmp_path):
    large = noise(9 * MIB, local_runs.resource)
    write(tmp_path / "source", {"a": b"small", "large": large, "z": b"small, too"})
    os.link(tmp_path / "source" / "large", tmp_path / "source" / "name")
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "target", {"name": b"the old one"})
    local_runs.call = Damaged(local_runs.call)
    report = local_runs.restore(tmp_path / "target")
    assert [(issue.path, issue.reason) for issue in report.issues] == [
        (b"large", "stored data fails its verification"),
        (b"name", "is a further name of a file that was not restored"),
    ]
    assert sorted(os.listdir(tmp_path / "target")) == ["a", "name", "z"]
    assert (tmp_path / "target" / "name").read_bytes() == b"the old one"


class Failing:
    """A store that becomes unavailable after `answers` chunks."""

    def __init__(self, call, answers):
        self.inner = call
        self.left = answers

    def call(self, operation):
        if isinstance(operation, GetChunk):
            self.left -= 1
            if self.left < 0:
                raise ServiceUnavailableException("gone")
        return self.inner.call(operation)


def test_a_failing_store_leaves_the_existing_files(local_runs, tmp_path):
    write(tmp_path / "source", {"a": noise(16 * MIB, local_runs.resource), "b": b"new", "d": b"new"})
    local_runs.backup(tmp_path / "source")
    write(tmp_path / "target", {"a": b"old", "b": b"old", "d": {"precious": b"precious"}})
    before = seen(tmp_path / "target")
    local_runs.call = Failing(local_runs.call, 4)
    with pytest.raises(ServiceUnavailableException):
        local_runs.restore(tmp_path / "target", delete=True)
    left = seen(tmp_path / "target")
    assert left[b"a"] == before[b"a"]
    assert not [path for path in left if b".cryo-restore" in path]
    assert b"d/precious" in left or left[b"d"]["content"] == seen(tmp_path / "source")[b"d"]["content"]


def test_a_file_is_synced_before_it_replaces_another(local_runs, backed_up, tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    write(tmp_path / "target", {"a": b"other"})
    local_runs.restore(tmp_path / "target")
    assert len(b"archived a") in synced
    synced.clear()
    local_runs.restore(tmp_path / "new")
    assert len(b"archived a") not in synced

"""Resume of an interrupted run: which data is not sent again, and what prevents a resume."""

from __future__ import annotations

import errno
import os
import random
import sys

import pytest

from cryostore.agent.backup.job import HEARTBEAT_SECONDS, locked_note, open_job
from cryostore.agent.header import STREAM
from cryostore.agent.report import Report
from cryostore.agent.streams.single_file import SingleFileOptions
from cryostore.agent.streams.stream import backup_stream
from cryostore.agent.upload.uploader import THREADS
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.limits import MIB
from cryostore.model.chunks import PutChunk
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.objects import DeleteObject
from support.archives.agent import seen, write
from support.stores.in_process import opened

COVERS = ("agent/streams/single_file.py", "agent/backup/job.py")


def noise(length, seed):
    return random.Random(seed).randbytes(length)


class Killed(BaseException):
    """Ends a run without clean-up, as SIGKILL does."""


class Counting:
    """A store that counts chunks, and kills the run after `die_after` of them."""

    def __init__(self, call, die_after=None):
        self.inner = call
        self.die_after = die_after
        self.chunks = 0
        self.dead = False

    def call(self, operation):
        if self.dead:
            raise Killed
        if isinstance(operation, PutChunk):
            if self.die_after is not None and self.chunks >= self.die_after:
                self.dead = True
                raise Killed
            self.chunks += 1
        return self.inner.call(operation)


def test_data_that_a_killed_run_sent_is_not_sent_again(runs, tmp_path):
    write(tmp_path / "source", {f"{n:02}": noise(MIB, f"{runs.resource} {n}") for n in range(30)})
    with locked_note(str(tmp_path / "notes"), "a") as note:
        first = Counting(runs.call, die_after=20)
        call, runs.call = runs.call, first
        with pytest.raises(Killed):
            runs.backup(tmp_path / "source", note=NeverCleared(note))
        second = runs.call = Counting(call)
        report, _ = runs.backup(tmp_path / "source", note=note)
        runs.call = call
    assert first.chunks == 20
    with runs.opened() as archive:
        chunks = sum(archive.chunks_count(each.number) for each in archive.header.objects)
    # Chunks in flight when the run died may not have arrived, and the second run also sends a listing.
    assert second.chunks <= chunks - first.chunks + THREADS + 1
    assert report.issue_count == 0
    runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


class NeverCleared:
    """The note that a killed process leaves: it still names the job."""

    def __init__(self, note):
        self.job_id = note.job_id
        self.save = note.save

    def clear(self):
        """Do nothing."""


class Unreachable:
    """A store that becomes unreachable after some chunks, like a killed server."""

    def __init__(self, call, chunks):
        self.inner = call
        self.left = chunks

    def call(self, operation):
        self.left -= isinstance(operation, PutChunk)
        if self.left < 0:
            raise ConnectionFailedError("connection refused")
        return self.inner.call(operation)


def test_a_run_resumes_after_an_outage(local_runs, tmp_path):
    write(tmp_path / "source", {f"{n:02}": noise(MIB, f"{local_runs.resource} {n}") for n in range(30)})
    call, local_runs.call = local_runs.call, Unreachable(local_runs.call, 20)
    with locked_note(str(tmp_path / "notes"), "a") as note, pytest.raises(ConnectionFailedError):
        local_runs.backup(tmp_path / "source", note=note)
    local_runs.call = counting = Counting(call)
    with locked_note(str(tmp_path / "notes"), "a") as note:
        local_runs.backup(tmp_path / "source", note=note)
        assert not note.job_id()
    with local_runs.opened() as archive:
        chunks = sum(archive.chunks_count(each.number) for each in archive.header.objects)
    assert counting.chunks <= chunks - 20 + THREADS + 1
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_stream_resumes_after_an_outage(local_runs, tmp_path):
    wanted = SingleFileOptions(kind=STREAM, name=b"dump", vault="Default", resource=local_runs.resource)
    line = [sys.executable, "-c", "import os; os.write(1, os.urandom(1 << 22))"]
    with locked_note(str(tmp_path / "notes"), "a") as note, pytest.raises(ConnectionFailedError):
        backup_stream(Unreachable(local_runs.call, 1), wanted, line, Report(), note=note)
    with locked_note(str(tmp_path / "notes"), "a") as note:
        assert backup_stream(local_runs.call, wanted, line, Report(), note=note).recovery_point_arn


def test_a_job_whose_objects_have_changed_is_not_resumed(local_runs, tmp_path):
    write(tmp_path / "source", {"file": noise(MIB, local_runs.resource)})
    local_runs.backup(tmp_path / "source")
    with locked_note(str(tmp_path / "notes"), "a") as note:
        job = open_job(local_runs.call, "Default", local_runs.resource, {}, note)
        local_runs.call.call(DeleteObject(backup_job_id=job.job_id, object_name="content-00000001"))
        _, outcome = local_runs.backup(tmp_path / "source", note=note)
    assert outcome.same
    local_runs.restore(tmp_path / "target")
    assert seen(tmp_path / "target") == seen(tmp_path / "source")


def test_a_job_of_another_run_is_not_touched(local_runs, tmp_path):
    write(tmp_path / "source", {"file": b"file"})
    job = open_job(local_runs.call, "Default", local_runs.resource, {})
    with pytest.raises(ServiceUnavailableException, match="another backup of this resource is running"):
        local_runs.backup(tmp_path / "source")
    job.give_up(CryostoreError("test"))
    assert local_runs.backup(tmp_path / "source")[1].recovery_point_arn


@pytest.mark.parametrize("wait_seconds", [0, 300, 301, 3600])
def test_a_run_that_waits_for_its_server_keeps_its_job(tmp_path, wait_seconds):
    """The store receives nothing from it meanwhile. A run that is silent for longer loses its job."""
    with opened(tmp_path / "data") as store:
        open_job(store, "Default", "tree", {}, wait_seconds=wait_seconds)
        store.clock.advance(wait_seconds * 1000 + 2 * HEARTBEAT_SECONDS * 1000)
        with pytest.raises(ServiceUnavailableException, match="another backup of this resource is running"):
            open_job(store, "Default", "tree", {})
        store.clock.advance(2 * HEARTBEAT_SECONDS * 1000)
        open_job(store, "Default", "tree", {})


def test_two_runs_of_one_resource_do_not_share_a_note(tmp_path):
    with (
        locked_note(str(tmp_path), "store", "vault", "a"),
        locked_note(str(tmp_path), "store", "vault", "b"),
        pytest.raises(ConfigurationError, match="already running on this machine"),
        locked_note(str(tmp_path), "store", "vault", "a"),
    ):
        pass
    with locked_note(str(tmp_path), "store", "vault", "a") as note:
        note.save("job")
    with locked_note(str(tmp_path), "store", "vault", "a") as note:
        assert note.job_id() == "job"


def test_without_a_folder_there_is_no_note(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (None, str(tmp_path / "file")):
        with locked_note(folder, "a") as note:
            assert note is None


def test_a_run_succeeds_without_a_note_that_cannot_be_written(local_runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(tmp_path / "source", {"file": b"x"})
    with locked_note(str(tmp_path / "notes"), "a") as note:
        monkeypatch.setattr(os, "pwrite", full)
        monkeypatch.setattr(os, "ftruncate", full)
        _, outcome = local_runs.backup(tmp_path / "source", note=note)
    assert outcome.recovery_point_arn == local_runs.latest()
